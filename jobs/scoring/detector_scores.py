"""How good the detector itself is, on the pictures of an evaluation that have true objects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from jobs.audit.findings import Cell, Table
from jobs.names import printable
from jobs.scoring.average_precision import mean_over_categories
from jobs.scoring.options import ScoreOptions
from jobs.scoring.pictures import DetectedPicture
from jobs.scoring.reported import Reported
from jobs.scoring.saved_boxes import SavedBoxes, detection_rows, truth_rows
from jobs.scoring.score import Scored, scored_pictures
from jobs.truth.objects import Truth

# Where the boxes and the true objects are kept, for `jobs score`.
FOLDER = "boxes/"
OVERLAP = 0.5
# Means over the categories that have objects, by name; "mean AP" is COCO's.
FIGURES = ("mean AP50", "mean AP50 11-point", "mean AP")


def detected_pictures(
    detections: Mapping[str, Reported], truth: Truth
) -> Iterator[DetectedPicture]:
    """Each picture's boxes beside its true objects; what nobody annotated is left out."""
    for key, found in detections.items():
        objects = truth.objects(printable(key))
        if objects is not None:
            yield DetectedPicture(
                printable(key), found.boxes, found.categories, found.scores, objects
            )


def saved(detections: Mapping[str, Reported], truth: Truth) -> SavedBoxes:
    """The boxes and the true objects as tables."""
    boxes: list[Mapping[str, Any]] = []
    truths: list[Mapping[str, Any]] = []
    for picture in detected_pictures(detections, truth):
        boxes += detection_rows(picture)
        truths += truth_rows(picture.key, picture.objects)
    return SavedBoxes.of(boxes, truths)


def scored(boxes: SavedBoxes, score_threshold: float = 0.5) -> Scored:
    """Average precision of saved boxes: PASCAL VOC's at OVERLAP, and COCO's."""
    options = ScoreOptions(place="", iou=(OVERLAP,), score_threshold=score_threshold, coco=True)
    return scored_pictures(boxes.pictures(), options)


def figures_of(found: Scored) -> dict[str, float]:
    """FIGURES, 0 ... 1, but for what is no number."""
    assert found.coco is not None
    categories = found.by_iou[OVERLAP].values()
    values = (
        mean_over_categories(each.every_point for each in categories),
        mean_over_categories(each.eleven_point for each in categories),
        found.coco.figures["AP"],
    )
    named = zip(FIGURES, values, strict=True)
    return {name: value for name, value in named if math.isfinite(value)}


def table_of(found: Scored, score_threshold: float = 0.5) -> Table:
    """A row for each category, and their mean."""
    assert found.coco is not None
    coco = found.coco.by_category
    rows: list[tuple[Cell, ...]] = [
        (
            *(name, each.objects, each.detections),
            *map(_number, (each.every_point, each.eleven_point, coco.get(name, math.nan))),
            *map(_number, (each.recall, each.precision)),
        )
        for name, each in found.by_iou[OVERLAP].items()
    ]
    means = figures_of(found)
    rows.append(("mean", None, None, *(means.get(name) for name in FIGURES), None, None))
    return Table(
        "The detector",
        "Average precision against the true objects: PASCAL VOC's by every point and by eleven at"
        f" IoU {OVERLAP:g}, and COCO's (the mean over IoU .50 to .95). Recall and precision are"
        f" those of boxes scoring at least {score_threshold:g}.",
        ("category", "objects", "boxes", "AP50", "11-point", "AP", "recall", "precision"),
        tuple(rows),
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""Maps of a detector's boxes measured beside two controls, box by box; any function of a picture
and its explanations can be a map.

    subjects = chosen_boxes(explainer, picture, MeasureOptions())
    rows = measure(explainer, picture, subjects, {"odam": explained(explainer, ExplainRequest())})
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from handlers.explainer import Explainer
from handlers.images import Geometry, to_pictures
from handlers.metrics.controls import gaussian_in_box, smooth_random_field
from handlers.metrics.faithfulness import FaithfulnessOptions, Scoring, deletion, insertion
from handlers.metrics.localization import BY_BOX, BY_OBJECTS, localization
from handlers.schema import ExplainRequest, Explanation
from jobs.evaluation.subjects import MeasureOptions, Subjects
from jobs.evaluation.tracking import scorings

GAUSSIAN, RANDOM = "control: Gaussian in the box", "control: smooth random field"
CONTROLS = (GAUSSIAN, RANDOM)
# Of a row: what is averaged. Shares and areas, 0 ... 1, but for compactness.
CURVES = (
    *("deletion", "insertion", "deletion_score", "insertion_score"),
    *("deletion_raw", "insertion_raw", "deletion_score_raw", "insertion_score_raw"),
)
FIGURES = (*BY_BOX, *CURVES)
# With the truth besides; `iou` is the box's with its object, whatever the map.
OVERLAP = "iou"
OF_TRUTH = (*BY_OBJECTS, OVERLAP)

# A picture (uint8 [3, H, W]) and explanations of its boxes, by whatever method: the same
# explanations with maps of another.
Maker = Callable[[Tensor, Sequence[Explanation]], Sequence[Explanation]]


def figure_names(truth: bool) -> tuple[str, ...]:
    """What a row has figures of, with true objects or without."""
    return (*BY_BOX, *OF_TRUTH, *CURVES) if truth else FIGURES


def paired(figures: Sequence[str]) -> tuple[str, ...]:
    """Of these the figures whose differences from controls are told."""
    return tuple(name for name in figures if name != OVERLAP)


def explained(explainer: Explainer, request: ExplainRequest) -> Maker:
    """The maps that a request asks for."""

    def make(picture: Tensor, boxes: Sequence[Explanation]) -> Sequence[Explanation]:
        wanted = [each.index for each in boxes]
        asked = replace(request, score_threshold=0.0, max_detections=max(wanted) + 1)
        found = {each.index: each for each in explainer.explain([picture], asked)[0]}
        return [found[index] for index in wanted]

    return make


def gaussian(picture: Tensor, boxes: Sequence[Explanation]) -> Sequence[Explanation]:
    """The control that knows each box and nothing else."""
    height, width = picture.shape[1:]
    return [with_map(picture, each, gaussian_in_box(each.box, height, width)) for each in boxes]


def random_fields(seed: int) -> Maker:
    """The control that knows nothing: of each box a field of its own."""

    def make(picture: Tensor, boxes: Sequence[Explanation]) -> Sequence[Explanation]:
        height, width = picture.shape[1:]
        own = zlib.crc32(picture.numpy().tobytes())
        return [
            with_map(picture, each, smooth_random_field(height, width, seed + own + each.index))
            for each in boxes
        ]

    return make


def with_map(picture: Tensor, explanation: Explanation, heat: Tensor) -> Explanation:
    """The explanation with a map [H, W] of the picture's own pixels."""
    height, width = picture.shape[1:]
    geometry = Geometry(width, height, float(width), float(height), 1.0, 1.0)
    return replace(explanation, heatmap=heat, geometry=geometry)


def measure(
    explainer: Explainer,
    picture: Tensor,
    subjects: Subjects,
    makers: Mapping[str, Maker],
    options: MeasureOptions,
) -> list[dict[str, Any]]:
    """For each map and box of a picture (uint8 [3, H, W]) a row of `figure_names`, with the map's
    name ("map"), the box's place ("index") and score, and "seconds": what the maps of all the
    boxes, and of those that score better than one of them, took, detection included.

    The figures of `handlers.metrics.localization` are against the box's true object where the truth
    is known, else against the box itself. `deletion` and `insertion` are of D-RISE's similarity,
    `..._score` of the second of `similarities`, over where it starts; `..._raw` as it is.
    """
    if not subjects.boxes:
        return []
    parameters = explainer.detector.model.parameters()
    device = next((each.device for each in parameters), torch.device("cpu"))
    regions = subjects.regions(picture, device)
    left = scorings(explainer, picture, subjects.boxes, options.batch_size)
    rows, located = [], []
    for name, maker in makers.items():
        started = time.perf_counter()
        maps = maker(picture, subjects.boxes)
        seconds = time.perf_counter() - started
        heats = to_pictures([(each.heatmap, each.geometry) for each in maps], device)
        located.append(localization(heats, regions))
        for each, heat, scoring in zip(maps, heats.cpu(), left, strict=True):
            row = {"map": name, "index": each.index, "score": each.score, "seconds": seconds}
            rows.append(row | _curves(picture, heat, scoring, options.faithfulness))
    if subjects.overlap:
        own = torch.tensor(subjects.overlap, dtype=torch.float64, device=device)
        located = [{**found, OVERLAP: own} for found in located]
    names = list(located[0])
    # Off the device once: [map, figure, box].
    values = torch.stack([torch.stack([found[name] for name in names]) for found in located])
    flat = values.transpose(1, 2).flatten(0, 1).tolist()
    return [row | dict(zip(names, own, strict=True)) for row, own in zip(rows, flat, strict=True)]


def _curves(
    picture: Tensor, heat: Tensor, scoring: Scoring, options: FaithfulnessOptions
) -> dict[str, float]:
    gone = deletion(scoring, picture, heat, options)
    back = insertion(scoring, picture, heat, options)
    found = {"blurred": float(back.scores[0, 0])}
    for place, kind in enumerate(("", "_score")):
        for name, curve in (("deletion", gone), ("insertion", back)):
            found[f"{name}{kind}"] = float(curve.normalised[place])
            found[f"{name}{kind}_raw"] = float(curve.area[place])
    return found

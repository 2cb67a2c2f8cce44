"""Maps of a detector's boxes measured beside two controls, box by box; any function of a picture
and its explanations can be a map.

    boxes = chosen_boxes(explainer, picture, MeasureOptions())
    rows = measure(explainer, picture, boxes, {"odam": explained(explainer, ExplainRequest())})
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handlers.explainer import Explainer
from handlers.images import Geometry
from handlers.metrics.controls import gaussian_in_box, smooth_random_field
from handlers.metrics.faithfulness import (
    FaithfulnessOptions,
    Scoring,
    deletion,
    insertion,
    similarities,
)
from handlers.metrics.pointing import energy_in_box, peak
from handlers.schema import ExplainRequest, Explanation
from handlers.tap import undisturbed

GAUSSIAN, RANDOM = "control: Gaussian in the box", "control: smooth random field"
CONTROLS = (GAUSSIAN, RANDOM)
# Of a row: what is averaged, as a share or an area, 0 ... 1.
FIGURES = (
    *("pointing", "energy", "deletion", "insertion", "deletion_score", "insertion_score"),
    *("deletion_score_raw", "insertion_score_raw"),
)

# Of these the differences from controls are told.
PAIRED = ("deletion", "insertion", "deletion_score", "insertion_score")

# A picture (uint8 [3, H, W]) and explanations of its boxes, by whatever method: the same
# explanations with maps of another.
Maker = Callable[[Tensor, Sequence[Explanation]], Sequence[Explanation]]


@dataclass(frozen=True)
class MeasureOptions:
    """What is measured.

    score_threshold: boxes scoring more than this are measured, 0 ... 1.
    per_picture: at most so many boxes of a picture, drawn at random.
    batch_size: pictures in one pass of the detector; more than 16 come at once nowhere.
    seed: of the drawn boxes and of the random field.
    faithfulness: how pixels go and come.
    """

    score_threshold: float = 0.5
    per_picture: int = 3
    batch_size: int = 16
    seed: int = 0
    faithfulness: FaithfulnessOptions = field(default_factory=FaithfulnessOptions)


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


def chosen_boxes(
    explainer: Explainer, picture: Tensor, options: MeasureOptions
) -> list[Explanation]:
    """The boxes of a picture that are measured, without a map (one cell of zero), best first."""
    found = explainer.detect([picture])[0]
    over = np.flatnonzero(found.scores.numpy() > options.score_threshold)
    random = np.random.default_rng([options.seed, zlib.crc32(picture.numpy().tobytes())])
    places = sorted(random.permutation(over)[: options.per_picture].tolist())
    boxes = []
    for place in places:
        x1, y1, x2, y2 = found.boxes[place].tolist()
        label = int(found.labels[place])
        blank = Explanation(
            index=place,
            box=(x1, y1, x2, y2),
            label=label,
            category=explainer.categories[label],
            score=float(found.scores[place]),
            method="",
            target="",
            layer="",
            level=found.level[place],
            heatmap=torch.zeros(1, 1),
            geometry=Geometry(1, 1, 1.0, 1.0, 1.0, 1.0),
        )
        boxes.append(blank)
    return boxes


def measure(
    explainer: Explainer,
    picture: Tensor,
    boxes: Sequence[Explanation],
    makers: Mapping[str, Maker],
    options: MeasureOptions,
) -> list[dict[str, Any]]:
    """For each map and box of a picture (uint8 [3, H, W]) a row of FIGURES, with the map's name
    ("map"), the box's place ("index") and score, and "seconds": what the maps of all the boxes,
    and of those that score better than one of them, took, detection included. `deletion` and
    `insertion` are of D-RISE's similarity, `..._score` of the second of `similarities`, over where
    it starts; `..._raw` as it is.
    """
    if not boxes:
        return []
    scorings = _scorings(explainer, picture, boxes, options.batch_size)
    rows = []
    for name, maker in makers.items():
        started = time.perf_counter()
        maps = maker(picture, boxes)
        seconds = time.perf_counter() - started
        for each, scoring in zip(maps, scorings, strict=True):
            row = {"map": name, "index": each.index, "score": each.score, "seconds": seconds}
            rows.append(row | _figures(picture, each, scoring, options.faithfulness))
    return rows


def _figures(
    picture: Tensor, explanation: Explanation, scoring: Scoring, options: FaithfulnessOptions
) -> dict[str, float]:
    x, y = peak(explanation)
    x1, y1, x2, y2 = explanation.box
    # A map of zeros points nowhere.
    points = x1 <= x <= x2 and y1 <= y <= y2 and bool(explanation.heatmap.max() > 0)
    heat = explanation.on_picture()
    gone = deletion(scoring, picture, heat, options)
    back = insertion(scoring, picture, heat, options)
    return {
        "pointing": float(points),
        "energy": energy_in_box(explanation),
        "deletion": float(gone.normalised[0]),
        "insertion": float(back.normalised[0]),
        "deletion_score": float(gone.normalised[1]),
        "insertion_score": float(back.normalised[1]),
        "deletion_score_raw": float(gone.area[1]),
        "insertion_score_raw": float(back.area[1]),
        "blurred": float(back.scores[0, 0]),
    }


def _scorings(
    explainer: Explainer, picture: Tensor, boxes: Sequence[Explanation], batch_size: int
) -> list[Scoring]:
    """For each box what is left of it in changed pictures: [B, 2], as `similarities`."""
    detections = _Remembered(explainer, batch_size)
    ((kept, probabilities),) = detections.of(picture[None])

    def scoring(place: int) -> Scoring:
        box, label = kept[place], boxes_labels[place]

        def score(pictures: Tensor) -> Tensor:
            return torch.stack(
                [
                    similarities(box, label, probabilities[place], theirs, classes)
                    for theirs, classes in detections.of(pictures)
                ]
            )

        return score

    boxes_labels = {each.index: each.label for each in boxes}
    return [scoring(each.index) for each in boxes]


# The reported boxes [N, 4] of a picture and their class probabilities [N, K], the background's
# zero, as for D-RISE.
_Detections = tuple[Tensor, Tensor]


@dataclass
class _Remembered:
    """Detections on pictures, each looked at once: every curve begins and ends with the same."""

    explainer: Explainer
    batch_size: int
    known: dict[bytes, _Detections] = field(default_factory=dict)

    def of(self, pictures: Tensor) -> list[_Detections]:
        """Of each picture (uint8 [B, 3, H, W])."""
        names = [sha256(each.numpy().tobytes()).digest() for each in pictures]
        every = dict(zip(names, pictures, strict=True))
        new = {name: each for name, each in every.items() if name not in self.known}
        self.known.update(zip(new, self._found(list(new.values())), strict=True))
        return [self.known[name] for name in names]

    def _found(self, pictures: Sequence[Tensor]) -> Iterable[_Detections]:
        detector = self.explainer.detector
        with undisturbed(detector.model):
            # They are of one size, so come in their order.
            for _, found in self.explainer.found(
                [self.explainer.prepare(each) for each in pictures], self.batch_size
            ):
                scores = found.raw.scores[found.kept.entries.candidate].clone()
                scores[:, : detector.first_label] = 0
                yield found.kept.boxes.cpu(), scores.cpu()

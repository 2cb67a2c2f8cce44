"""The boxes of a picture that are measured, and what their maps are held against."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from handlers.explainer import Explainer
from handlers.images import Geometry
from handlers.metrics.faithfulness import FaithfulnessOptions
from handlers.metrics.localization import Regions, box_masks
from handlers.schema import Detections, Explanation
from jobs.scoring.matching import matched, overlaps
from jobs.scoring.reported import Reported
from jobs.truth.objects import Objects

# A detection is of an object that it overlaps at least so much.
LEAST_OVERLAP = 0.5


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


@dataclass(frozen=True)
class Subjects:
    """The boxes of a picture that are measured.

    boxes: without a map (one cell of zero), best first. reported: all that was detected.
    objects: the true objects of the picture; None where the truth is not asked for. own: of each
        box the place of its object. overlap: of each box the IoU with it.
    """

    boxes: tuple[Explanation, ...]
    reported: Reported
    objects: Objects | None = None
    own: tuple[int, ...] = ()
    overlap: tuple[float, ...] = ()

    def regions(self, picture: Tensor, device: torch.device) -> Regions:
        """What the maps are held against: the boxes and masks of their objects, or without a truth
        the boxes themselves. picture: uint8 [3, H, W]. Raises ValueError for a mask that is not of
        the picture's size."""
        if self.objects is None:
            return Regions(torch.tensor([each.box for each in self.boxes], device=device))
        objects, (height, width) = self.objects, picture.shape[1:]
        masks = torch.zeros(len(objects), height, width, dtype=torch.bool)
        for place, mask in enumerate(objects.masks):
            if mask is None:
                continue
            if mask.shape != (height, width):
                raise ValueError(
                    f"an object's mask is of {mask.shape[1]} x {mask.shape[0]} pixels, the picture"
                    f" of {width} x {height}; expected annotations of this very picture"
                )
            masks[place] = torch.from_numpy(mask)
        masks = masks.to(device)
        boxes = torch.from_numpy(objects.boxes).to(device, torch.float32)
        drawn = masks.flatten(1).any(1)[:, None, None]
        every = torch.where(drawn, masks, box_masks(boxes, height, width)).any(0)
        own = torch.tensor(self.own, dtype=torch.int64, device=device)
        return Regions(boxes[own], masks[own], every)


def chosen_boxes(
    explainer: Explainer, picture: Tensor, options: MeasureOptions, objects: Objects | None = None
) -> Subjects:
    """The boxes of a picture (uint8 [3, H, W]) that are measured; with its true objects of those
    that are matched one to one with one of their category, as `jobs.scoring.matching.matched`
    does."""
    found = explainer.detect([picture])[0]
    reported = Reported.of(found, explainer.categories)
    over = np.flatnonzero(found.scores.numpy() > options.score_threshold)
    own = np.full(len(found), -1, dtype=np.int64)
    if objects is not None:
        boxes, scores = reported.boxes[over], reported.scores[over]
        categories = [reported.categories[place] for place in over]
        own[over] = matched(boxes, categories, scores, objects, LEAST_OVERLAP)
        over = over[own[over] >= 0]
    random = np.random.default_rng([options.seed, zlib.crc32(picture.numpy().tobytes())])
    places = sorted(random.permutation(over)[: options.per_picture].tolist())
    chosen = tuple(_without_map(explainer, found, place) for place in places)
    if objects is None:
        return Subjects(chosen, reported)
    shares = overlaps(reported.boxes[places], objects.boxes)
    theirs = tuple(own[places].tolist())
    overlap = tuple(float(shares[row, place]) for row, place in enumerate(theirs))
    return Subjects(chosen, reported, objects, theirs, overlap)


def _without_map(explainer: Explainer, found: Detections, place: int) -> Explanation:
    x1, y1, x2, y2 = found.boxes[place].tolist()
    label = int(found.labels[place])
    return Explanation(
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

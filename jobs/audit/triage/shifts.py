"""Detections and maps that a picture keeps when it is moved by a few pixels, or does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handlers.schema import Explanation
from jobs.audit.changes.maps import map_change
from jobs.audit.changes.pairing import agreement, pairs

# Which way and how many units, in the order in which they are taken.
WAYS = ((1, 0), (0, 1), (-2, 0), (0, -2), (-1, 0), (0, -1), (2, 0), (0, 2))
# A picture's longer side over this is a unit: 2 px of 320, 4 px of 640.
UNITS = 160
LEAST_UNIT = 2
# A box of which less is left on the moved picture is not asked for.
STAYS = 0.75
LEAST_IOU = 0.5


@dataclass(frozen=True)
class Kept:
    """What a move left of a detection.

    stability: 0 (lost, or of another category) to 1: IoU times the scores' ratio, the smaller over
    the larger, times the maps' correlation (0 if below). says: for a person.
    """

    stability: float
    says: str


def moves(width: int, height: int, number: int) -> list[tuple[int, int]]:
    """How far, right and down in pixels, a picture is moved, `number` times at most 8."""
    unit = max(LEAST_UNIT, round(max(width, height) / UNITS))
    return [(unit * x, unit * y) for x, y in WAYS[:number]]


def moved(picture: Tensor, right: int, down: int) -> Tensor:
    """The picture [3, H, W] with its content moved; what comes in at an edge is mirrored there."""
    _, height, width = picture.shape
    return picture[:, _mirrored(height, down)][:, :, _mirrored(width, right)]


def _mirrored(side: int, by: int) -> Tensor:
    """Where each of `side` pixels comes from."""
    places = (torch.arange(side) - by).abs()
    return (side - 1 - (side - 1 - places).abs()).clamp(0, side - 1)


def kept(
    before: Sequence[Explanation], after: Sequence[Explanation], right: int, down: int
) -> list[Kept | None]:
    """What a move left of each detection; None where too little of its box is on the moved picture.

    before, after: the picture's explanations, and the moved picture's.
    """
    if not before:
        return []
    boxes = _boxes(before)
    there = boxes + np.array([right, down, right, down])
    sides = np.array([before[0].geometry.picture_width, before[0].geometry.picture_height] * 2)
    on_picture = there.clip(0, sides)
    stays = _areas(on_picture) >= STAYS * _areas(boxes)
    found = pairs(
        agreement(on_picture, _boxes(after)),
        ([each.category for each in before], [each.category for each in after]),
        ([each.score for each in before], [each.score for each in after]),
        LEAST_IOU,
    )
    other_of = dict(found)
    shares = agreement(on_picture, _boxes(after))
    result: list[Kept | None] = []
    for place, each in enumerate(before):
        if not stays[place]:
            result.append(None)
        elif place not in other_of:
            result.append(Kept(0.0, "it is lost"))
        else:
            other = after[other_of[place]]
            share = float(shares[place, other_of[place]])
            result.append(_kept(each, other, share, right, down))
    return result


def _kept(before: Explanation, after: Explanation, iou: float, right: int, down: int) -> Kept:
    if before.category != after.category:
        return Kept(0.0, f"it becomes {after.category} {after.score:.2f}")
    largest = max(before.score, after.score)
    ratio = min(before.score, after.score) / largest if largest > 0 else 1.0
    width, height = before.geometry.picture_width, before.geometry.picture_height
    # What both pictures show.
    window = max(0, -right), max(0, -down), width - max(0, right), height - max(0, down)
    alike = max(map_change(before, back(after, right, down), window).correlation, 0.0)
    return Kept(
        iou * ratio * alike,
        f"its score becomes {after.score:.2f}, its box's IoU is {iou:.2f}, its map's correlation"
        f" {alike:.2f}",
    )


def back(explanation: Explanation, right: int, down: int) -> Explanation:
    """A moved picture's explanation, its map on the picture as it was."""
    geometry = explanation.geometry
    window = geometry.window
    if window is not None:
        x1, y1, x2, y2 = window
        window = (x1 - right, y1 - down, x2 - right, y2 - down)
    geometry = replace(
        geometry,
        offset_x=geometry.offset_x + right * geometry.scale_x,
        offset_y=geometry.offset_y + down * geometry.scale_y,
        window=window,
    )
    x1, y1, x2, y2 = explanation.box
    box = (x1 - right, y1 - down, x2 - right, y2 - down)
    return replace(explanation, box=box, geometry=geometry)


def _boxes(explanations: Sequence[Explanation]) -> NDArray[np.float64]:
    return np.array([each.box for each in explanations], dtype=np.float64).reshape(-1, 4)


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    return found

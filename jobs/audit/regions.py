"""Regions of a picture that evidence may lie in: beside a box, cells of the frame, boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels
Mask = NDArray[np.bool_]  # [H, W]

SIDES = ("right", "left", "below", "above")
# The frame in thirds, row by row.
CELLS = tuple(
    f"{row} {column}".replace("middle middle", "middle")
    for row in ("upper", "middle", "lower")
    for column in ("left", "middle", "right")
)
# A strip beside a box is so wide, as a share of the box's mean side (geometric, so that what stands
# beside a tall box is hidden, too), but at least so many pixels.
STRIP_SHARE, LEAST_STRIP = 0.8, 12
# Pixels around a box that belong to it: a box is seldom exact.
MARGIN = 1


def inside(box: Box, height: int, width: int, margin: float = 0) -> Mask:
    """The pixels [H, W] of a box, or of it with `margin` pixels more on each side."""
    x1, y1, x2, y2 = box
    found = np.zeros((height, width), dtype=np.bool_)
    rows = slice(max(0, int(np.floor(y1 - margin))), max(0, int(np.ceil(y2 + margin))))
    columns = slice(max(0, int(np.floor(x1 - margin))), max(0, int(np.ceil(x2 + margin))))
    found[rows, columns] = True
    return found


def beside(box: Box, side: str, height: int, width: int) -> Mask:
    """The strip [H, W] along one of SIDES of a box, without the box. Above and below it reaches
    past the box's corners by as much as it is high; to the left and right it does not."""
    x1, y1, x2, y2 = box
    wide = max(LEAST_STRIP, STRIP_SHARE * math.sqrt(max(0, x2 - x1) * max(0, y2 - y1)))
    strip = {
        "right": (x2, y1, x2 + wide, y2),
        "left": (x1 - wide, y1, x1, y2),
        "below": (x1 - wide, y2, x2 + wide, y2 + wide),
        "above": (x1 - wide, y1 - wide, x2 + wide, y1),
    }[side]
    return inside(strip, height, width) & ~inside(box, height, width, MARGIN)


def cell(name: str, height: int, width: int) -> Mask:
    """One of CELLS of the frame: [H, W]."""
    row, column = divmod(CELLS.index(name), 3)
    found = np.zeros((height, width), dtype=np.bool_)
    rows, columns = (
        slice(place * length // 3, (place + 1) * length // 3)
        for place, length in ((row, height), (column, width))
    )
    found[rows, columns] = True
    return found


def outside_all(boxes: Sequence[Box], height: int, width: int) -> Mask:
    """The pixels [H, W] that are in none of the boxes."""
    found = np.ones((height, width), dtype=np.bool_)
    for each in boxes:
        found &= ~inside(each, height, width, MARGIN)
    return found

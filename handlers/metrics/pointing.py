"""Where a heatmap points: its peak, and its share inside the box, both on the map's own cells.

These are what a job's rows hold, since they cost next to nothing; an evaluation has the figures of
`handlers.metrics.localization`, on the picture's pixels. The energy is one function.
"""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.metrics.localization import energy
from handlers.schema import Explanation


def peak(explanation: Explanation) -> tuple[float, float]:
    """The middle (x, y), in picture pixels, of the largest cell (the first of equals).

    A cell that reaches beyond the picture is cut at its border first, so the point lies on it.
    """
    height, width = explanation.heatmap.shape
    place = int(explanation.heatmap.argmax())
    row, column = divmod(place, width)
    geometry = explanation.geometry
    left, top = geometry.point_of(column, row, height, width)
    right, bottom = geometry.point_of(column + 1, row + 1, height, width)
    x = (_clip(left, geometry.picture_width) + _clip(right, geometry.picture_width)) / 2
    y = (_clip(top, geometry.picture_height) + _clip(bottom, geometry.picture_height)) / 2
    return x, y


def energy_in_box(explanation: Explanation) -> float:
    """The share of the map's sum that lies inside the box, 0 ... 1 (Wang et al. 2020, Score-CAM).

    As that paper does, the smallest value is subtracted first. A cell that the box or the picture's
    border cuts counts by its part inside; padding beyond the picture does not count. A map with
    nothing in it has energy 0.
    """
    geometry = explanation.geometry
    picture = (0.0, 0.0, float(geometry.picture_width), float(geometry.picture_height))
    on_picture, in_box = (_cover(explanation, each) for each in (picture, explanation.box))
    return float(energy(explanation.heatmap[None].double(), in_box[None], on_picture[None])[0])


def _clip(value: float, limit: float) -> float:
    return min(max(value, 0.0), limit)


def _cover(explanation: Explanation, box: tuple[float, float, float, float]) -> Tensor:
    """How much of each cell lies inside a box given in picture pixels: [h, w], in cells."""
    height, width = explanation.heatmap.shape
    geometry = explanation.geometry
    left, top, right, bottom = geometry.window or box
    left, top = max(left, box[0]), max(top, box[1])
    right, bottom = max(left, min(right, box[2])), max(top, min(bottom, box[3]))
    one = geometry.cell_of(left, top, height, width)
    two = geometry.cell_of(right, bottom, height, width)
    (x1, x2), (y1, y2) = (sorted(pair) for pair in zip(one, two, strict=True))  # maybe mirrored
    rows = _overlap(y1, y2, height, geometry.clipped)
    return torch.outer(rows, _overlap(x1, x2, width, geometry.clipped))


def _overlap(start: float, end: float, cells: int, clipped: bool) -> Tensor:
    left = torch.arange(cells, dtype=torch.float64)
    right = left + 1
    if not clipped:  # the outermost cells go on
        left[0], right[-1] = -torch.inf, torch.inf
    return (right.clamp(max=end) - left.clamp(min=start)).clamp(min=0)

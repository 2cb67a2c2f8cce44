"""How alike two heatmaps of one picture are, whatever grids they have."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from handlers.images import Geometry
from handlers.metrics.pointing import peak
from handlers.schema import Explanation
from jobs.audit.changes import tolerances

Window = tuple[float, float, float, float]
# Cells a side, at most, of the grid on which maps of different grids are compared.
LARGEST_SIDE = 512


@dataclass(frozen=True)
class MapChange:
    """How a map changed; not at all, 1 and 0, where maps differ by rounding alone.

    correlation: Pearson's, -1 ... 1, over the picture; 1 of two flat maps, 0 of a flat map and
    another. peak_shift: how far the peak moved, in diagonals of the box; 0 where the one map's is
    still among the other's largest values, None where a map is flat and so has none.
    """

    correlation: float
    peak_shift: float | None


def map_change(before: Explanation, after: Explanation, window: Window | None = None) -> MapChange:
    """How the map of a detection changed. Both are of one picture, in its pixels. window: the part
    of it that counts; None for all."""
    if before.geometry == after.geometry and torch.equal(before.heatmap, after.heatmap):
        return MapChange(1.0, None if _flat(_array(before)) else 0.0)
    one, other = aligned(before, after, window)
    flat = _flat(one), _flat(other)
    if any(flat):
        return MapChange(float(all(flat)), None)
    correlation = pearson(one, other)
    if 1 - correlation <= tolerances.CORRELATION:
        correlation = 1.0
    return MapChange(correlation, _shift(before, after, one, other))


def pearson(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Pearson's correlation of two maps of one shape, neither of them flat: -1 ... 1."""
    one, other = one - one.mean(), other - other.mean()
    together = float((one * other).sum())
    return together / math.sqrt(float((one**2).sum()) * float((other**2).sum()))


def aligned(
    before: Explanation, after: Explanation, window: Window | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both maps on one grid of the picture, padding left out: on their own where they share it,
    else on one as fine as the finer of them. window: as for `map_change`."""
    one, other = before.geometry, after.geometry
    if one == other and before.heatmap.shape == after.heatmap.shape:
        place = np.ix_(*cells_inside(one, tuple(before.heatmap.shape), window))
        first, second = _array(before)[place], _array(after)[place]
        if first.size:
            return first, second
    width, height = one.picture_width, one.picture_height
    across, down = (
        min(max(1, *(math.ceil(each) for each in sides)), LARGEST_SIDE)
        for sides in zip(_cells(before), _cells(after), strict=True)
    )
    plain = Geometry(width, height, float(width), float(height), 1.0, 1.0)
    first, second = (
        each.geometry.onto(each.heatmap, plain, down, across).double().numpy()
        for each in (before, after)
    )
    if window is not None:
        place = np.ix_(*cells_inside(plain, (down, across), window))
        first, second = first[place], second[place]
    return first, second


def _array(explanation: Explanation) -> NDArray[np.float64]:
    found: NDArray[np.float64] = explanation.heatmap.double().numpy()
    return found


def _cells(explanation: Explanation) -> tuple[float, float]:
    """How many of the map's cells would cover the picture, across and down."""
    geometry, (height, width) = explanation.geometry, explanation.heatmap.shape
    return (
        geometry.picture_width * abs(geometry.scale_x) / geometry.frame_width * width,
        geometry.picture_height * abs(geometry.scale_y) / geometry.frame_height * height,
    )


@functools.lru_cache(maxsize=256)  # the boxes of a picture share few grids
def cells_inside(
    geometry: Geometry, shape: tuple[int, ...], window: Window | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows and which columns of a grid of `shape`, height and width, have their middle on the
    picture: inside a window of it, where there is one."""
    height, width = shape
    left, top, right, bottom = window or (0, 0, geometry.picture_width, geometry.picture_height)
    x = [geometry.point_of(each + 0.5, 0, height, width)[0] for each in range(width)]
    y = [geometry.point_of(0, each + 0.5, height, width)[1] for each in range(height)]
    return (
        np.array([top <= each <= bottom for each in y]),
        np.array([left <= each <= right for each in x]),
    )


def _flat(heat: NDArray[np.float64]) -> bool:
    return float(heat.max() - heat.min()) <= tolerances.MAP * float(heat.max())


def _shift(
    before: Explanation,
    after: Explanation,
    one: NDArray[np.float64],
    other: NDArray[np.float64],
) -> float:
    # Of peaks that are equal but for rounding any may be the first.
    least = 1 - tolerances.MAP
    if (
        one.flat[other.argmax()] >= least * one.max()
        or other.flat[one.argmax()] >= least * other.max()
    ):
        return 0.0
    x1, y1, x2, y2 = before.box
    diagonal = math.hypot(x2 - x1, y2 - y1)
    return math.dist(peak(before), peak(after)) / diagonal if diagonal else 0.0

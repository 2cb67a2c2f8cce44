"""The connected components of a map above each of many thresholds, all at once.

A row of pixels above a threshold is cut into runs. Where a row's values rise from one threshold to
another runs of all thresholds between begin, so one look at the map finds the runs of all of them:
no pixel is looked at once for each threshold. Runs that touch in neighbouring rows are joined by
one search in a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Runs that are joined at once: with more, thresholds are taken by halves. About 300 MB.
MOST_RUNS = 2_000_000
NEIGHBOURS = (4, 8)


@dataclass(frozen=True)
class Components:
    """Connected components, by their threshold, each threshold's in the order of their first
    pixels.

    threshold: int64 [K], places among the thresholds. boxes: float64 [K, 4], the tightest ones:
    x1, y1, x2, y2, the edges of pixels (x2 is the last column and one). area: int64 [K], in pixels.
    peak: float64 [K], the largest value inside.
    """

    threshold: NDArray[np.int64]
    boxes: NDArray[np.float64]
    area: NDArray[np.int64]
    peak: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.threshold)


def components(
    heat: NDArray[np.floating], thresholds: Sequence[float], connectivity: int = 8
) -> Components:
    """Those of `heat >= threshold` for each threshold.

    heat: [H, W]. thresholds: in the map's own unit, ascending, each once, at least one.
    connectivity: 4 (pixels that share an edge) or 8 (or a corner). Raises ValueError for others.
    """
    levels = np.asarray(thresholds, dtype=np.float64)
    if connectivity not in NEIGHBOURS or not len(levels) or np.any(np.diff(levels) <= 0):
        raise ValueError(
            f"got connectivity {connectivity} and thresholds {thresholds}; expected 4 or 8, and"
            " thresholds that ascend"
        )
    # Many maps are nearly nothing all over the picture.
    above = heat >= levels[0]
    rows, columns = (np.flatnonzero(above.any(axis=axis)) for axis in (1, 0))
    top, left = (int(each[0]) if len(each) else 0 for each in (rows, columns))
    bottom, right = (int(each[-1]) + 1 if len(each) else 0 for each in (rows, columns))
    values = np.ascontiguousarray(heat[top:bottom, left:right], dtype=np.float64)
    # How many thresholds each pixel reaches.
    rank = np.searchsorted(levels, values.ravel(), side="right").reshape(values.shape)
    found = _between(values, rank, 0, len(levels), connectivity)
    return replace(found, boxes=np.add(found.boxes, [left, top, left, top]))


def _between(
    values: NDArray[np.float64], rank: NDArray[np.int64], first: int, last: int, connectivity: int
) -> Components:
    """Those of the thresholds first ... last - 1."""
    own = np.clip(rank - first, 0, last - first)
    steps = np.diff(own, axis=1, prepend=0, append=0)
    if last - first > 1 and int(np.clip(steps, 0, None).sum()) > MOST_RUNS:
        middle = (first + last) // 2
        halves = [
            _between(values, rank, *part, connectivity)
            for part in ((first, middle), (middle, last))
        ]
        names = ("threshold", "boxes", "area", "peak")
        return Components(
            *(np.concatenate([getattr(each, name) for each in halves]) for name in names)
        )
    # A place is a line (a threshold's row) and an edge of a pixel in it; of sorted starts and
    # sorted ends those at one place in their lists are one run's.
    height, width = values.shape
    across = width + 1
    starts, ends = (_places(np.clip(each, 0, None), own) for each in (steps, -steps))
    line, left = np.divmod(starts, across)
    right = ends - line * across
    level, row = np.divmod(line, height)
    label = _joined(starts, ends, across, row == height - 1, connectivity)
    order = np.argsort(label, kind="stable")
    begin = np.flatnonzero(np.diff(label[order], prepend=-1))

    def over(function: np.ufunc, each: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = function.reduceat(each[order], begin) if len(begin) else each
        return found

    # What lies between two runs is looked at, too, and dropped.
    bounds = np.stack([row * width + left, row * width + right], axis=1).ravel()
    peaks = np.maximum.reduceat(np.append(values, -np.inf), bounds)[::2] if len(bounds) else left
    edges = (
        *(over(np.minimum, left), over(np.minimum, row)),
        *(over(np.maximum, right), over(np.maximum, row + 1)),
    )
    return Components(
        threshold=over(np.minimum, level) + first,
        boxes=np.stack(edges, axis=1).astype(np.float64),
        area=over(np.add, right - left),
        peak=over(np.maximum, peaks.astype(np.float64)),
    )


def _places(count: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where runs begin, or end, sorted: threshold, row and column as one number.

    count: [H, W + 1], at each edge how many. own: [H, W], the thresholds that each pixel reaches.
    """
    height, across = count.shape
    rows, columns = np.nonzero(count)
    number = count[rows, columns]
    # Of the pixels beside an edge the higher one reaches `number` thresholds more.
    padded = np.pad(own, ((0, 0), (1, 1)))
    least = np.minimum(padded[rows, columns], padded[rows, columns + 1])
    nth = np.arange(int(number.sum())) - np.repeat(np.cumsum(number) - number, number)
    level = np.repeat(least, number) + nth
    places: NDArray[np.int64] = (level * height + np.repeat(rows, number)) * across
    return np.sort(places + np.repeat(columns, number))


def _joined(
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    across: int,
    last_row: NDArray[np.bool_],
    connectivity: int,
) -> NDArray[np.int64]:
    """The component of each run, 0, 1, ... by their first runs."""
    # The runs of the next row that one touches lie beside each other.
    corners = connectivity == 8
    low = np.searchsorted(ends, starts + across, side="left" if corners else "right")
    high = np.searchsorted(starts, ends + across, side="right" if corners else "left")
    count = np.where(last_row, 0, high - low)
    upper = np.repeat(np.arange(len(starts)), count)
    lower = np.arange(len(upper)) + np.repeat(low - np.cumsum(count) + count, count)
    graph = coo_array((np.ones(len(upper), np.int8), (upper, lower)), shape=(len(starts),) * 2)
    label = connected_components(graph, directed=False)[1]
    # Not every version numbers them by their first member.
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    names: NDArray[np.int64] = np.argsort(np.argsort(first))[inverse]
    return names

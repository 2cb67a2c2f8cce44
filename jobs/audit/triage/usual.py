"""What is usual for a category, from counts that fit any number of detections."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

BINS = 1000
# Of a normal distribution the standard deviation is so many median absolute deviations.
NORMAL = 1.4826
DEVIATIONS = 3.0
FEW = 20
# Where most values are equal, one that is a little off is not unusual.
LEAST_DEVIATION = 0.02


class Usual:
    """How a figure of 0 ... 1 is spread, to a thousandth."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(BINS, dtype=np.int64)

    def add(self, value: float) -> None:
        """One detection's."""
        self._counts[place_of(value)] += 1

    @property
    def number(self) -> int:
        """How many values there were."""
        return int(self._counts.sum())

    def median(self) -> float:
        """The middle of the bin of the median; not a number where there is nothing."""
        return _weighted_median(_MIDDLES, self._counts)

    def deviation(self) -> float:
        """The median absolute deviation times NORMAL: a standard deviation that a tail cannot
        stretch."""
        return NORMAL * _weighted_median(np.abs(_MIDDLES - self.median()), self._counts)

    def low(self, level: float) -> float:
        """What is unusually low: DEVIATIONS deviations below the median, and below `level`. A whole
        number of thousandths; of fewer than FEW values `level` alone decides."""
        if self.number < FEW:
            return _floor(level)
        return _floor(min(level, self.median() - self._far()))

    def high(self, level: float) -> float:
        """Likewise, what is unusually high."""
        if self.number < FEW:
            return _ceiling(level)
        return _ceiling(max(level, self.median() + self._far()))

    def _far(self) -> float:
        return DEVIATIONS * max(self.deviation(), LEAST_DEVIATION)

    def below(self, limit: float) -> int:
        """How many values are below a whole number of thousandths."""
        return int(self._counts[: max(round(limit * BINS), 0)].sum())

    def from_on(self, limit: float) -> int:
        """How many values are at least a whole number of thousandths."""
        return int(self._counts[max(round(limit * BINS), 0) :].sum())


def place_of(value: float) -> int:
    """The bin of a value, 0 ... BINS - 1."""
    return min(max(math.floor(value * BINS + 1e-9), 0), BINS - 1)


_MIDDLES = (np.arange(BINS) + 0.5) / BINS


def _floor(value: float) -> float:
    return max(math.floor(value * BINS + 1e-9), 0) / BINS


def _ceiling(value: float) -> float:
    return min(math.ceil(value * BINS - 1e-9), BINS) / BINS


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.int64]) -> float:
    order = np.argsort(values, kind="stable")
    sums = weights[order].cumsum()
    if not sums[-1]:
        return math.nan
    return float(values[order][int(np.searchsorted(sums, sums[-1] / 2))])

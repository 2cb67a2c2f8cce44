"""Whether differences between two runs are more than chance, from sums that fit any number of
pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# With so few differences all their signs are tried; so many are kept.
TRIED, KEPT = 16, 4096
# Bentkus and Dzindzalieta 2015 (Bernoulli 21, 1231): P(S >= x) <= C P(Z >= x) for every weighted
# sum S of random signs with variance 1, Z normal; C = 1 / (4 P(Z >= sqrt(2))) is the least.
TIGHT = 1 / (2 * math.erfc(1))


class PairedDifferences:
    """One figure's differences, after less before, picture by picture.

    Boxes of one picture are no independent evidence: whatever is said of errors and of chance takes
    a picture as the unit.
    """

    def __init__(self) -> None:
        self.pictures = 0
        self.number = 0
        self._sum = self._squares = self._with_number = 0.0
        self._number_squares = 0
        self._first: list[float] = []
        self._changed = 0

    def add(self, values: Sequence[float]) -> None:
        """The differences of one picture's detections; none are no picture."""
        if not values:
            return
        total, number = math.fsum(values), len(values)
        self.pictures += 1
        self.number += number
        self._sum += total
        self._squares += total**2
        self._with_number += total * number
        self._number_squares += number**2
        if total:
            self._changed += 1
            if self._changed <= KEPT:
                self._first.append(total)

    def mean(self) -> float:
        """Over all detections; not a number where there are none."""
        return self._sum / self.number if self.number else math.nan

    def error(self) -> float:
        """The mean's standard error, clustered by picture; not a number below two pictures."""
        if self.pictures < 2:
            return math.nan
        mean = self.mean()
        # The sum over pictures of (total - mean * number) squared.
        spread = self._squares - 2 * mean * self._with_number + mean**2 * self._number_squares
        spread *= self.pictures / (self.pictures - 1)
        return math.sqrt(max(spread, 0.0)) / self.number

    def p_value(self) -> float:
        """Of the sign-flip test, two-sided, 0 ... 1.

        How likely sums so far from zero are if each picture's sum might as well have the other
        sign: by trying all signs for up to TRIED pictures that changed; beyond that by bounds that
        hold for any number and any values, so that it is never too small: TIGHT times what a normal
        distribution gives, and for up to KEPT pictures Chernoff's, which knows how uneven they are.
        Pictures without a difference count neither way.
        """
        if not self._changed:
            return 1.0
        if self._changed > TRIED:
            z = abs(self._sum) / math.sqrt(self._squares)
            bounds = [1.0, TIGHT * math.erfc(z / math.sqrt(2))]
            if self._changed <= KEPT:
                bounds.append(2 * _chernoff(np.abs(self._first), abs(self._sum)))
            return min(bounds)
        sums = np.zeros(1)
        for value in self._first:
            sums = np.concatenate([sums - value, sums + value])
        # Sums that differ by rounding alone are equal.
        reached = abs(math.fsum(self._first)) * (1 - 1e-9)
        return float((np.abs(sums) >= reached).mean())


def _chernoff(sizes: NDArray[np.float64], reached: float) -> float:
    """exp(-t reached) times the mean of exp(t S), S the sum of `sizes` with random signs: at least
    P(S >= reached) for every t > 0. The least over some t."""
    t = np.geomspace(0.01, 1000, 51)[:, None] / sizes.max()
    # log cosh x, without overflow.
    logarithms = t * sizes + np.log1p(np.exp(-2 * t * sizes)) - math.log(2)
    return float(np.exp((logarithms.sum(axis=1) - t[:, 0] * reached).min()))


def fewest_pictures(alpha: float) -> int:
    """With fewer pictures no test can say anything at `alpha`: if all of them change alike, the
    chance of that is still 2 / 2^n."""
    return 1 + math.ceil(-math.log2(alpha) - 1e-12)


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979), in their order: those up to alpha hold
    together with a chance of at most alpha that any one is false, however they depend on each
    other."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted

"""Shares and how sure they are: Wilson's interval, an exact test, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Of a normal distribution, two-sided 95 %.
NORMAL_95 = 1.959964


def wilson(successes: int, number: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): (0, 1) of nothing."""
    if not number:
        return 0.0, 1.0
    share, z2 = successes / number, NORMAL_95**2
    middle = (share + z2 / (2 * number)) / (1 + z2 / number)
    spread = math.sqrt(share * (1 - share) / number + z2 / (4 * number**2))
    half = NORMAL_95 * spread / (1 + z2 / number)
    return max(0.0, middle - half), min(1.0, middle + half)


def binomial_tail(successes: int, number: int, level: float) -> float:
    """The probability of at least so many successes of `number` where each has `level`, 0 ... 1."""
    if successes <= 0:
        return 1.0
    logs = [
        math.lgamma(number + 1)
        - math.lgamma(each + 1)
        - math.lgamma(number - each + 1)
        + each * math.log(level)
        + (number - each) * math.log1p(-level)
        for each in range(successes, number + 1)
    ]
    return min(1.0, math.fsum(math.exp(each) for each in logs))


def holm(values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979), in their order."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    found, most = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(values) - rank) * values[place]))
        found[place] = most
    return found

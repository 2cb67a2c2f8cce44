"""Which detection of one run is which of another, on one picture: one to one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.audit.changes import tolerances
from jobs.scoring.matching import overlaps


def agreement(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of boxes [N, 4] with others [M, 4]: [N, M], and exactly 1 of two
    whose edges differ by rounding, without an area, too."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    apart = np.abs(boxes[:, None] - others[None]).max(axis=2)
    return np.where(apart <= tolerances.BOX, 1.0, overlaps(boxes, others))


def pairs(
    overlap: NDArray[np.float64],
    categories: tuple[Sequence[str], Sequence[str]],
    scores: tuple[Sequence[float], Sequence[float]],
    least: float,
) -> list[tuple[int, int]]:
    """Places of detections that are one another's, before and after, each at most once.

    Those of one category first, then across categories what is left; the largest overlap first,
    from `least` on. Of overlaps that are equal to a hundredth the closer score: a detector without
    suppression draws several boxes on one object. Exchanging before and after exchanges the pairs'
    sides and nothing else.
    overlap: [N, M], as `agreement` gives it. categories, scores: of the N and of the M.
    """

    def order(pair: tuple[int, int]) -> tuple[bool, float, float, int, int]:
        one, other = pair
        differ = categories[0][one] != categories[1][other]
        apart = abs(scores[0][one] - scores[1][other])
        return differ, -round(float(overlap[pair]), 2), apart, abs(one - other), one + other

    found: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = set(), set()
    near = [(int(one), int(other)) for one, other in np.argwhere(overlap >= least)]
    for one, other in sorted(near, key=order):
        if one not in taken[0] and other not in taken[1]:
            found.append((one, other))
            taken[0].add(one)
            taken[1].add(other)
    return sorted(found)

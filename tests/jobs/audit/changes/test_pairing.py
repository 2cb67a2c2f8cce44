"""Which detection of one run is which of another."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.audit.changes.pairing import agreement, pairs


def boxes(*edges: tuple[float, float, float, float]) -> NDArray[np.float64]:
    return np.array(edges, dtype=np.float64).reshape(-1, 4)


Box = tuple[float, float, float, float]
Listed = list[tuple[Box, str, float]]
A: Box = (0, 0, 10, 10)
NEAR_A: Box = (0, 0, 10, 9)
OVER_A: Box = (0, 0, 10, 6)
FAR: Box = (50, 50, 60, 60)
TWICE: Listed = [(A, "cat", 0.9), (A, "cat", 0.9)]


def test_boxes_that_rounding_moved_agree_wholly() -> None:
    one = boxes(A, (5, 5, 5, 9))
    other = boxes((0.05, 0, 10, 9.95), (5.04, 5, 5, 9), NEAR_A)
    assert agreement(one, other) == pytest.approx(np.array([[1, 0, 0.9], [0, 1, 0]]))
    assert agreement(one, boxes()).shape == (2, 0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([(A, "cat", 0.9)], [(NEAR_A, "cat", 0.9)], [(0, 0)]),
        ([(A, "cat", 0.9)], [(FAR, "cat", 0.9)], []),
        ([(A, "cat", 0.9)], [(NEAR_A, "dog", 0.9)], [(0, 0)]),
        # The larger overlap; what is left over finds nothing.
        ([(A, "cat", 0.9)], [(OVER_A, "cat", 0.9), (NEAR_A, "cat", 0.1)], [(0, 1)]),
        # Its category goes before the overlap, and the other is then free for another.
        ([(A, "cat", 0.9)], [(A, "dog", 0.9), (OVER_A, "cat", 0.9)], [(0, 1)]),
        (
            [(A, "cat", 0.9), (A, "dog", 0.8)],
            [(A, "bird", 0.9), (NEAR_A, "cat", 0.9)],
            [(0, 1), (1, 0)],
        ),
        # Doubles, as a detector without suppression draws them, go by their scores.
        ([(A, "cat", 0.9), (A, "cat", 0.6)], [(A, "cat", 0.59), TWICE[0]], [(0, 1), (1, 0)]),
        (TWICE, TWICE, [(0, 0), (1, 1)]),
    ],
)
def test_pairs_by_hand(before: Listed, after: Listed, expected: list[tuple[int, int]]) -> None:
    overlap = agreement(*(boxes(*(box for box, _, _ in side)) for side in (before, after)))
    names, others = ([name for _, name, _ in side] for side in (before, after))
    scores, ratings = ([score for _, _, score in side] for side in (before, after))
    assert pairs(overlap, (names, others), (scores, ratings), 0.5) == expected
    turned = pairs(overlap.T, (others, names), (ratings, scores), 0.5)
    assert sorted((one, other) for other, one in turned) == expected

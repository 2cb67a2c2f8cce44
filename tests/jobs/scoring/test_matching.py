"""Which detection is of which object."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.scoring.matching import FALSE, IGNORED, matched, overlaps
from jobs.truth.objects import Objects


def objects(difficult: bool = False, crowd: bool = False) -> Objects:
    return Objects(
        np.array([[0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 10]], dtype=np.float64),
        ("cat", "cat", "dog"),
        np.array([False, difficult, False]),
        np.array([False, crowd, False]),
        (None,) * 3,
    )


@pytest.mark.parametrize(
    ("pixel", "expected"), [(0, [50 / 100, 0, 25 / 175]), (1, [66 / 121, 0, 36 / 206])]
)
def test_overlaps(pixel: float, expected: list[float]) -> None:
    one = np.array([[0, 0, 10, 10]], dtype=np.float64)
    others = np.array([[0, 0, 10, 5], [40, 40, 50, 50], [5, 5, 15, 15]], dtype=np.float64)
    assert overlaps(one, others, pixel)[0].tolist() == pytest.approx(expected)
    point = np.zeros((1, 4))
    assert overlaps(point, point).tolist() == [[0]]


def test_each_object_goes_to_the_surest() -> None:
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [21, 0, 31, 10], [20, 5, 30, 20]], float)
    scores = np.array([0.5, 0.9, 0.4, 0.3])
    found = matched(boxes, ["cat"] * 4, scores, objects())
    assert found.tolist() == [FALSE, 0, 1, FALSE]
    assert matched(boxes, ["dog"] * 4, scores, objects()).tolist() == [FALSE, 2, FALSE, FALSE]
    assert matched(boxes, ["cow"] * 4, scores, objects()).tolist() == [FALSE] * 4
    assert matched(boxes, ["cat"] * 4, scores, objects(), 0.85).tolist()[2] == FALSE


@pytest.mark.parametrize("kind", ["difficult", "crowd"])
def test_what_counts_neither_way(kind: str) -> None:
    boxes = np.array([[20, 0, 30, 10], [20, 0, 30, 9]], dtype=np.float64)
    found = matched(boxes, ["cat"] * 2, np.array([0.9, 0.8]), objects(**{kind: True}))
    assert found.tolist() == [IGNORED, IGNORED]

"""MaxBoxAcc and MaxBoxAccV2 by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jobs.boxes.box_accuracy import best_overlaps, box_accuracy, max_box_acc, max_box_acc_v2
from jobs.boxes.map_boxes import MapBoxes


def test_the_largest_and_the_best_of_all_with_any_true_box() -> None:
    boxes = MapBoxes(
        threshold=np.array([0, 0, 2]),
        boxes=np.array([[0, 0, 2, 2], [0, 0, 4, 4], [8, 8, 9, 10]], dtype=float),
        peak=np.ones(3),
        largest=np.array([False, True, True]),
    )
    truth = np.array([[0, 0, 2, 4], [8, 8, 10, 10]], dtype=float)
    found = best_overlaps(boxes, truth, 3)
    # 4 of 8 pixels; 8 of 16; and nothing at the second threshold; 2 of 4.
    assert found.largest.tolist() == [0.5, 0, 0.5]
    assert found.any.tolist() == [0.5, 0, 0.5]
    smaller = np.array([[0, 0, 2, 2]], dtype=float)
    assert best_overlaps(boxes, smaller, 3).largest.tolist() == [0.25, 0, 0]
    assert best_overlaps(boxes, smaller, 3).any.tolist() == [1, 0, 0]


def test_a_map_without_boxes_meets_nothing() -> None:
    none = np.zeros(0)
    boxes = MapBoxes(none.astype(int), np.zeros((0, 4)), none, none.astype(bool))
    found = best_overlaps(boxes, np.ones((1, 4)), 2)
    assert (found.largest.tolist(), found.any.tolist()) == ([0, 0], [0, 0])


#                     thresholds
BEST = np.array(
    [
        [0.30, 0.55, 0.10],
        [0.45, 0.50, 0.75],
        [0.90, 0.20, 0.70],
        [0.35, 0.00, 0.00],
    ]
)


def test_each_iou_has_its_own_best_threshold() -> None:
    assert box_accuracy(BEST, 0.3).tolist() == [1, 0.5, 0.5]
    assert box_accuracy(BEST, 0.5).tolist() == [0.25, 0.5, 0.5]
    assert box_accuracy(BEST, 0.7).tolist() == [0.25, 0, 0.5]
    assert max_box_acc(BEST) == (0.5, 1)  # the first of equals
    mean, each = max_box_acc_v2(BEST)
    assert mean == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert each == [(1.0, 0), (0.5, 1), (0.5, 2)]


def test_of_no_maps_there_is_no_accuracy() -> None:
    assert all(math.isnan(each) for each in box_accuracy(np.zeros((0, 2)), 0.5))

"""Boxes of maps, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.boxes.map_boxes import boxes_of_map, chosen, occluded, smoothed
from jobs.boxes.options import BoxStep

#        a peak of one pixel, and a wide hill whose box is larger
HEAT = np.array(
    [
        [10.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 5.0, 5.0, 1.0],
        [0.0, 0.0, 0.0, 5.0, 0.0, 1.0],
    ]
)
STEP = BoxStep(thresholds=(0.1, 0.5, 1.0))


def test_the_highest_peak_is_first_and_the_largest_marked() -> None:
    found = boxes_of_map(HEAT, STEP)
    assert found.threshold.tolist() == [0, 0, 1, 1, 2]
    assert found.boxes.tolist() == [
        [0, 0, 1, 1],
        [3, 2, 6, 4],
        [0, 0, 1, 1],
        [3, 2, 5, 4],
        [0, 0, 1, 1],
    ]
    assert found.peak.tolist() == [1, 0.5, 1, 0.5, 1]
    assert found.largest.tolist() == [False, True, False, True, True]
    assert chosen(found, "largest").boxes.tolist() == [[3, 2, 6, 4], [3, 2, 5, 4], [0, 0, 1, 1]]
    assert chosen(found, "all") is found


def test_of_equal_areas_the_higher_peak_is_the_largest() -> None:
    heat = np.array([[4.0, 0.0, 8.0]])
    found = boxes_of_map(heat, BoxStep(thresholds=(0.25,)))
    assert found.boxes.tolist() == [[2, 0, 3, 1], [0, 0, 1, 1]]
    assert found.largest.tolist() == [True, False]


def test_a_map_of_zeros_has_no_boxes() -> None:
    found = boxes_of_map(np.zeros((3, 4)), STEP)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert len(chosen(found, "largest")) == 0


def test_what_is_far_from_the_peak_is_hidden() -> None:
    # The diagonal is 5: half of it is 2.5 pixels, and (2, 2) lies 2.83 away.
    heat = np.ones((3, 4))
    heat[0, 0] = 2
    shown = [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]]
    np.testing.assert_array_equal(occluded(heat, 0.5) > 0, np.array(shown, dtype=bool))
    assert occluded(heat, None) is heat
    step = BoxStep(thresholds=(0.1,), occlusion_radius=0.5)
    assert boxes_of_map(heat, step).boxes.tolist() == [[0, 0, 3, 3]]


def test_a_blur_is_a_share_of_the_longer_side() -> None:
    heat = np.zeros((5, 41))
    heat[2, 20] = 1
    blurred = smoothed(heat, 2 / 41)
    # A Gaussian of two pixels: exp(-d^2 / 8) along the row.
    np.testing.assert_allclose(
        blurred[2, 16:25] / blurred[2, 20], np.exp(-(np.arange(-4, 5) ** 2) / 8), rtol=1e-5
    )
    assert smoothed(heat, 0) is heat
    (box,) = boxes_of_map(heat, BoxStep(thresholds=(0.5,), smooth=2 / 41)).boxes
    assert box[[0, 2]].tolist() == [18, 23]  # exp(-4 / 8) is above a half, exp(-9 / 8) is not


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_from_the_threshold_on(share: float) -> None:
    heat = np.array([[share * 3, 3.0]])
    assert boxes_of_map(heat, BoxStep(thresholds=(share,))).boxes.tolist() == [[0, 0, 2, 1]]

"""How alike two heatmaps are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from handlers.images import Geometry
from jobs.audit.changes.maps import aligned, map_change, pearson
from tests.jobs.audit.scripted import SIDE, found

BOX = (0.0, 0.0, 30.0, 40.0)  # a diagonal of 50
ONE = found("cat", 0.9, BOX, [[0, 1], [2, 3]])


def with_heat(heat: object) -> Tensor:
    return torch.tensor(heat, dtype=torch.float32)


@pytest.mark.parametrize(
    ("heat", "correlation", "shift"),
    [
        ([[0, 1], [2, 3]], 1, 0),
        ([[0, 10], [20, 30]], 1, 0),  # its strength does not count
        ([[3, 2], [1, 0]], -1, 20 * 2**0.5 / 50),
        # Deviations -1.5 -.5 .5 1.5 and .25 -.75 .25 .25: .5 / sqrt(5 * .75); the first of three.
        ([[1, 0], [1, 1]], 0.5 / (5 * 0.75) ** 0.5, 0),
        ([[0, 1], [3, 2]], 4 / 5, 20 / 50),
        ([[0, 1.002], [2, 2.998]], 1, 0),
        ([[0, 0], [0, 0]], 0, None),
        ([[2, 2], [2, 2.001]], 0, None),
    ],
)
def test_maps_on_one_grid_by_hand(heat: object, correlation: float, shift: float | None) -> None:
    change = map_change(ONE, replace(ONE, heatmap=with_heat(heat)))
    assert change.correlation == pytest.approx(correlation)
    assert change.peak_shift == (None if shift is None else pytest.approx(shift))


def test_two_flat_maps_are_alike() -> None:
    flat = replace(ONE, heatmap=torch.zeros(2, 2))
    assert map_change(flat, replace(ONE, heatmap=torch.ones(2, 2))).correlation == 1


def test_a_peak_among_equals_has_not_moved() -> None:
    one = replace(ONE, heatmap=with_heat([[1, 0.999], [0, 0]]))
    other = replace(ONE, heatmap=with_heat([[0.999, 1], [0, 0]]))
    assert map_change(one, other).peak_shift == 0
    left, right = (replace(ONE, heatmap=with_heat([heat, [0, 0]])) for heat in ([1, 0.9], [0.9, 1]))
    assert map_change(left, right).peak_shift == 0.4


def test_grids_that_differ_meet_on_the_finer_one() -> None:
    fine = replace(ONE, heatmap=ONE.heatmap.repeat_interleave(4, 0).repeat_interleave(4, 1))
    one, other = aligned(ONE, fine)
    assert one.shape == other.shape == (8, 8)
    assert np.array_equal(other, fine.heatmap.numpy())
    # The coarse one is smooth between the middles of its cells, at 2 and 6 of 8.
    assert one[0, 0] == 0
    assert one[7, 7] == 3
    assert one[0, 3] == pytest.approx((3.5 - 2) / 4)
    change = map_change(ONE, fine)
    assert change.correlation == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    assert change.correlation > 0.9
    assert change.peak_shift == 0


def test_padding_does_not_count() -> None:
    # A frame twice as wide as the picture: the right column lies beyond it.
    padded = Geometry(SIDE, SIDE, 2.0 * SIDE, float(SIDE), 1.0, 1.0)
    one, other = (
        replace(ONE, geometry=padded, heatmap=with_heat([[0, 9], [1, edge]])) for edge in (0, 99)
    )
    assert map_change(one, other).correlation == 1
    assert [each.shape for each in aligned(one, other)] == [(2, 1), (2, 1)]


def test_only_a_window_of_the_picture_counts() -> None:
    other = replace(ONE, heatmap=with_heat([[0, 9], [2, 9]]))
    assert map_change(ONE, other, (0, 0, 20, 40)).correlation == 1
    fine = replace(other, heatmap=other.heatmap.repeat_interleave(2, 0).repeat_interleave(2, 1))
    one, two = aligned(ONE, fine, (0, 0, 20, 40))
    assert one.shape == (4, 2)
    assert two.tolist() == [[0, 0], [0, 0], [2, 2], [2, 2]]


def test_correlation_is_pearsons() -> None:
    random = np.random.default_rng(0)
    one, other = random.random((2, 5, 7))
    assert pearson(one, other) == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1])

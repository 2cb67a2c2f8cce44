from __future__ import annotations

import math

import pytest
import torch

from handlers.metrics.controls import gaussian_in_box, smooth_random_field


def test_the_gaussian_by_hand() -> None:
    # Sides of 20 and 8 pixels: standard deviations of 5 and 2 about (15, 9).
    heat = gaussian_in_box((5.0, 5.0, 25.0, 13.0), 20, 40)
    assert heat.shape == (20, 40)
    for column, row in ((14, 8), (15, 9), (5, 3), (39, 19)):
        expected = math.exp(-((column - 14.5) ** 2) / 50 - (row - 8.5) ** 2 / 8)
        assert float(heat[row, column]) == pytest.approx(expected, rel=1e-5)
    assert float(heat[5:13, 5:25].sum() / heat.sum()) == pytest.approx(0.9545**2, abs=0.01)


def test_a_box_without_an_area_has_its_gaussian_at_a_point() -> None:
    heat = gaussian_in_box((4.5, 2.5, 4.5, 2.5), 6, 8)
    assert heat.nonzero().tolist() == [[2, 4]]


def test_fields_are_smooth_and_their_seed_s_own() -> None:
    one, same, other = (smooth_random_field(60, 80, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert (float(one.min()), float(one.max())) == (0, 1)
    assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.5
    # Neighbours of a Gaussian of 4 pixels correlate by exp(-1 / (4 * 16)).
    near = torch.corrcoef(torch.stack([one[:, 1:].flatten(), one[:, :-1].flatten()]))[0, 1]
    assert float(near) == pytest.approx(math.exp(-1 / 64), abs=0.01)

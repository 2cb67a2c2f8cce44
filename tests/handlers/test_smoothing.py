from __future__ import annotations

import math

import pytest
import torch

from handlers.smoothing import gaussian_blur, gaussian_blurs


@pytest.mark.parametrize("across", [0.8, 0.5, None])
def test_a_blur_is_a_sum_over_neighbours(across: float | None) -> None:
    values = torch.rand(2, 7, 5, generator=torch.Generator().manual_seed(0)).double()
    downs, acrosses = (
        [math.exp(-(step**2) / (2 * sigma**2)) for step in range(-3, 4)]
        for sigma in (0.8, across or 0.8)
    )
    if across == 0.5:  # it ends at three standard deviations
        acrosses[0] = acrosses[-1] = 0
    total = sum(downs) * sum(acrosses)
    for row, column in ((0, 0), (3, 2), (6, 4)):
        expected = torch.zeros(2).double()
        for down in range(7):
            for beside in range(7):
                near = values[
                    :, min(max(row + down - 3, 0), 6), min(max(column + beside - 3, 0), 4)
                ]
                expected += downs[down] * acrosses[beside] / total * near
        found = gaussian_blur(values, 0.8, across)[:, row, column]
        assert found.tolist() == pytest.approx(expected.tolist())


def test_nothing_is_blurred_by_nothing() -> None:
    values = torch.rand(1, 4, 5)
    assert torch.equal(gaussian_blur(values, 0.0), values)
    only_down = gaussian_blur(values, 1.0, 0.0)
    assert torch.allclose(only_down.mean(1), gaussian_blur(values.mT, 0.0, 1.0).mT.mean(1))
    assert not torch.equal(only_down, values)


def test_many_blurs_at_once_are_each_ones_own() -> None:
    values = torch.rand(5, 9, 6, generator=torch.Generator().manual_seed(1))
    # None, less than a cell, a whole reach, more than the map.
    down, across = torch.tensor([[0.0, 0.3, 1.0, 2.5, 9.0], [1.2, 0.0, 2.0, 0.7, 6.0]])
    found = gaussian_blurs(values, down, across)
    for own, before, one, other in zip(found, values, down.tolist(), across.tolist(), strict=True):
        assert torch.allclose(own, gaussian_blur(before[None], one, other)[0], atol=1e-6)

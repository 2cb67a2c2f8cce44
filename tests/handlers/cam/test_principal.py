from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from handlers.cam import principal

NOTHING = torch.zeros(2, 120)


def factor(first: float, second: float, size: int = 120) -> Tensor:
    """Two matrices whose Gram matrices have these largest eigenvalues and the rest evenly below."""
    torch.manual_seed(0)
    directions = torch.linalg.qr(torch.randn(2, size, size, dtype=torch.float64))[0]
    values = torch.linspace(0, 1, size, dtype=torch.float64)
    values[-1], values[-2] = first, second
    rows: Tensor = directions @ torch.diag(values.sqrt())
    return rows.float()


def leading_of_all(rows: Tensor) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(rows.double() @ rows.double().mT)[1]
    return vectors[..., -1].float()


def off(found: Tensor, expected: Tensor) -> float:
    """The largest angle in radians between lines of the same place."""
    sines = (found - (found * expected).sum(-1, keepdim=True) * expected).norm(dim=-1)
    return float(sines.max())


@pytest.fixture
def of_all(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The matrices of which all eigenvectors were asked for."""
    asked: list[Any] = []
    every: Callable[[Tensor], Any] = torch.linalg.eigh

    def noted(matrix: Tensor) -> Any:
        if matrix.shape[-1] > principal.LANCZOS_STEPS:
            asked.append(matrix)
        return every(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", noted)
    return asked


@pytest.mark.parametrize(
    ("first", "second", "converges"), [(9, 2, True), (1.4, 1.1, True), (1.02, 1.0199, False)]
)
def test_the_leading_vector_is_that_of_all(
    first: float, second: float, converges: bool, of_all: list[Any]
) -> None:
    rows = factor(first, second)
    found = principal._leading(rows, NOTHING, 0)
    assert bool(of_all) is not converges
    assert off(found, leading_of_all(rows)) < principal.ANGLE


def test_one_strong_channel_beside_many_that_agree() -> None:
    rows = torch.zeros(1, 64, 65)
    rows[0, 0, 0] = 10**0.5
    rows[0, 1:, 1] = 1  # eigenvalue 63
    found = principal._leading(rows, NOTHING[:1, :64], 0)
    assert float(found[0, 0].abs()) < principal.ANGLE


@pytest.mark.parametrize("scale", [1e-30, 1e-14, 1e18])
def test_values_of_any_size(scale: float) -> None:
    rows = factor(9, 2)
    assert off(principal._leading(rows * scale, NOTHING, 0), leading_of_all(rows)) < 1e-4


def test_nothing_has_any_direction_and_what_is_not_finite_none() -> None:
    rows = torch.stack([torch.zeros(100, 100), torch.full((100, 100), torch.nan)])
    zero, broken = principal._leading(rows, NOTHING[:, :100], 0)
    assert bool(zero.isfinite().all())
    assert bool(broken.isnan().all())


@pytest.mark.parametrize(("channels", "cells"), [(60, 20), (20, 60), (60, 200), (60, 58)])
@pytest.mark.parametrize("outside", [0, 1, 500])
def test_cells_outside_count_as_zeros(channels: int, cells: int, outside: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, channels, cells) + torch.randn(2, channels, 1)
    mean = values.sum(-1) / (cells + outside)
    found = principal._first_component(values - mean[..., None], mean, outside)
    every = torch.cat([values, torch.zeros(2, channels, outside)], -1).double()
    centred = every - every.mean(-1, keepdim=True)
    assert off(found, torch.linalg.svd(centred)[0][..., 0].float()) < 3e-4
    # Padding, and the cells that it takes the place of.
    padded = torch.cat([values, torch.zeros(2, channels, outside + 3)], -1) - mean[..., None]
    assert off(principal._first_component(padded, mean, -3), found) < 3e-4

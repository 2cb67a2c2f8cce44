from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from handlers.cam import principal
from handlers.cam.gradient import DenseGradient
from handlers.cam.principal import Cells, first_components
from handlers.cam.registry import METHODS


def spread(first: float, second: float, size: int = 120) -> Tensor:
    """Two matrices whose Gram matrices have these largest eigenvalues and the rest evenly below."""
    torch.manual_seed(0)
    directions = torch.linalg.qr(torch.randn(2, size, size, dtype=torch.float64))[0]
    values = torch.linspace(0, 1, size, dtype=torch.float64)
    values[-1], values[-2] = first, second
    rows: Tensor = directions @ torch.diag(values.sqrt())
    return rows.float()


def leading(rows: Tensor) -> Tensor:
    """The first components of cells and their opposites, whose mean is zero."""
    cells = torch.cat([rows, -rows], -1)
    (found,) = first_components([Cells.of(cells, cells.shape[-1])])
    return found


def leading_of_all(rows: Tensor) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(rows.double() @ rows.double().mT)[1]
    return vectors[..., -1].float()


def off(found: Tensor, expected: Tensor) -> float:
    """The largest angle in radians between lines of the same place, which are of length 1."""
    assert torch.allclose(found.norm(dim=-1), torch.ones(()), atol=1e-5)
    sines = (found - (found * expected).sum(-1, keepdim=True) * expected).norm(dim=-1)
    return float(sines.max())


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How it was tried to find vectors."""
    tried: list[str] = []
    every: Callable[[Tensor], Any] = torch.linalg.eigh
    lanczos = principal._lanczos

    def noted(matrix: Tensor) -> Any:
        if matrix.shape[-1] > principal.SMALL:
            tried.append("all")
        return every(matrix)

    def steps(matrix: Tensor, trace: Tensor) -> Any:
        tried.append(str(matrix.dtype).removeprefix("torch."))
        return lanczos(matrix, trace)

    monkeypatch.setattr(torch.linalg, "eigh", noted)
    monkeypatch.setattr(principal, "_lanczos", steps)
    return tried


WAYS = ["float32", "float64", "all"]


@pytest.mark.parametrize(
    ("first", "second", "needed"),
    [
        *((9, 2, 1), (1.4, 1.1, 1), (1.4, 1.38, 2), (1.3, 1.295, 2), (1.02, 1.0199, 3)),
        # So close that they look like one.
        *((2, 1.9999, 2), (2, 1.99992, 2), (1.4, 1.39994, 2), (2.5, 2.4999, 2)),
    ],
)
def test_the_leading_vector_is_that_of_all(
    first: float, second: float, needed: int, ways: list[str]
) -> None:
    rows = spread(first, second)
    found = leading(rows)
    assert ways == WAYS[:needed]
    assert off(found, leading_of_all(rows)) < principal.ANGLE


def test_each_of_a_batch_takes_the_steps_that_it_needs(ways: list[str]) -> None:
    pairs = [(9, 2), (1.4, 1.38), (1.02, 1.0199), (1.4, 1.1), (1.3, 1.295)]
    rows = torch.cat([spread(*each) for each in pairs])
    found = leading(rows)
    assert ways == WAYS
    assert off(found, leading_of_all(rows)) < principal.ANGLE


def test_one_strong_channel_beside_many_that_agree() -> None:
    rows = torch.zeros(1, 64, 65)
    rows[0, 0, 0] = 10**0.5
    rows[0, 1:, 1] = 1  # eigenvalue 63
    expected = torch.cat([torch.zeros(1, 1), torch.ones(1, 63) / 63**0.5], 1)
    assert off(leading(rows), expected) < principal.ANGLE


def test_nothing_has_no_direction_and_what_is_not_finite_none() -> None:
    rows = torch.stack([torch.zeros(100, 100), torch.full((100, 100), torch.nan)])
    zero, broken = leading(rows)
    assert not bool(zero.any())
    assert bool(broken.isnan().all())
    assert bool(leading(rows[:, :20])[1].isnan().all())


@pytest.mark.parametrize(("channels", "cells"), [(60, 20), (20, 60), (60, 200), (60, 58)])
@pytest.mark.parametrize("outside", [0, 1, 500])
def test_cells_outside_count_as_zeros(channels: int, cells: int, outside: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, channels, cells) + torch.randn(2, channels, 1)
    every = torch.cat([values, torch.zeros(2, channels, outside)], -1).double()
    expected = torch.linalg.svd(every - every.mean(-1, keepdim=True))[0][..., 0].float()
    several = [Cells.of(values, cells + outside), Cells.of(values[:1], cells + outside)]
    both, first = first_components(several)
    assert off(both, expected) < 3e-4
    assert off(first, expected[:1]) < 3e-4


@pytest.mark.parametrize("method", ["eigencam", "eigengradcam"])
@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-12, 1e-11, 1.0, 1e8, 1e13, 1e30])
@pytest.mark.parametrize("size", [(4, 5), (12, 12)])
def test_values_of_any_size(scale: float, size: tuple[int, int], method: str) -> None:
    torch.manual_seed(0)
    activation = torch.randn(96, *size)
    gradient = torch.randn(3, 96, *size) + torch.randn(3, 96, 1, 1)
    function = METHODS.get(method)
    assert function is not None
    expected = function(DenseGradient(activation, gradient))
    if method == "eigencam":  # of the activation alone
        found = function(DenseGradient(activation * scale, gradient))
    else:
        found = function(DenseGradient(activation, gradient * scale))
    assert torch.allclose(found / scale, expected, atol=1e-3 * float(expected.abs().max()))
    assert float(expected.abs().max()) > 0.1

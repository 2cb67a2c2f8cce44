from __future__ import annotations

import pytest
import torch
from torch import Tensor

from handlers.cam import principal


def gram(first: float, second: float, size: int = 120) -> Tensor:
    """A batch of two with these largest eigenvalues and the rest evenly below."""
    torch.manual_seed(0)
    directions = torch.linalg.qr(torch.randn(2, size, size, dtype=torch.float64))[0]
    values = torch.linspace(0, 1, size, dtype=torch.float64)
    values[-1], values[-2] = first, second
    matrix: Tensor = directions @ torch.diag(values) @ directions.mT
    return matrix


@pytest.mark.parametrize(
    ("first", "second", "converges"), [(9, 2, True), (1.2, 1.1, True), (1.02, 1.0199, False)]
)
def test_the_leading_vector_is_that_of_all(
    first: float, second: float, converges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = gram(first, second)
    expected = torch.linalg.eigh(matrix)[1][..., -1]
    asked: list[Tensor] = []
    of_all = principal._leading_of_all

    def noted(matrix: Tensor) -> Tensor:
        asked.append(matrix)
        return of_all(matrix)

    monkeypatch.setattr(principal, "_leading_of_all", noted)
    found = principal._leading(matrix)
    assert bool(asked) is not converges
    agreement = (found * expected).sum(-1).abs()
    assert torch.allclose(agreement, torch.ones(2, dtype=torch.float64), atol=1e-8)


def test_a_strongest_column_at_right_angles() -> None:
    matrix = torch.zeros(1, 64, 64, dtype=torch.float64)
    matrix[0, 0, 0] = 10
    matrix[0, 1:, 1:] = 1  # eigenvalue 63
    found = principal._leading(matrix)
    assert float(found[0, 0].abs()) < 1e-6


def test_a_gram_matrix_of_tiny_values() -> None:
    matrix = gram(9, 2)
    found, expected = principal._leading(matrix * 1e-60), principal._leading(matrix)
    assert torch.allclose((found * expected).sum(-1).abs(), torch.ones(2).double(), atol=1e-8)


def test_nothing_has_any_direction_and_what_is_not_finite_none() -> None:
    assert bool(principal._leading(torch.zeros(1, 100, 100)).isfinite().all())
    assert bool(principal._leading(torch.full((1, 100, 100), torch.nan)).isnan().all())

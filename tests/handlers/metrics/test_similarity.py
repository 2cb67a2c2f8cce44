"""Correlations by hand, and beside plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from handlers.metrics.similarity import pearson, spearman


def test_by_hand() -> None:
    one = torch.tensor([[[1.0, 2], [3, 4]]])
    other = torch.tensor([[[1.0, 4], [9, 16]]])
    assert spearman(one, other).item() == pytest.approx(1)
    # Deviations -1.5, -.5, .5, 1.5 and -6.5, -3.5, 1.5, 8.5: 25 over the root of 5 * 129.
    assert pearson(one, other).item() == pytest.approx(25 / math.sqrt(5 * 129))
    assert spearman(one, -other).item() == pytest.approx(-1)
    # Ranks 0, 1, 2, 3 and .5, .5, 2.5, 2.5: 4 over the root of 5 * 4.
    ties = torch.tensor([[[0.0, 0], [7, 7]]])
    assert spearman(one, ties).item() == pytest.approx(4 / math.sqrt(5 * 4))


@pytest.mark.parametrize("measure", [pearson, spearman])
def test_maps_without_anything_in_them(measure: object) -> None:
    assert callable(measure)
    flat, other = torch.full((1, 2, 2), 3.0), torch.rand(1, 2, 2)
    assert measure(flat, other).item() == measure(other, flat).item() == 0
    assert measure(flat, torch.zeros(1, 2, 2)).isnan().all()


def test_ranks_are_counted_as_in_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randint(0, 6, (3, 4, 5), generator=generator) / 7 for _ in range(2))

    def ranks(values: list[float]) -> list[float]:
        return [
            sum(other < own for other in values) + (values.count(own) - 1) / 2 for own in values
        ]

    for place, found in enumerate(spearman(one, other).tolist()):
        a, b = (ranks(each[place].flatten().tolist()) for each in (one, other))
        mean = sum(a) / len(a)
        covariance = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
        spread = math.sqrt(sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b))
        assert found == pytest.approx(covariance / spread)

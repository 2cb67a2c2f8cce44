from __future__ import annotations

import pytest
import torch
from torch import Tensor

import handlers.cam.pooled
from handlers.cam.gradient import MapGradient
from handlers.cam.pooled import PooledGradient
from handlers.cam.registry import METHODS, Evidence, evidence_of


def by_hand() -> PooledGradient:
    """One detection, one channel, a map of 1 x 4; the head pooled cells 1 and 2 as they are."""
    columns = torch.tensor([[[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]])
    return PooledGradient(
        activation=torch.tensor([[[5.0, 2.0, -3.0, 7.0]]]),
        pooled=torch.tensor([[[[2.0, -3.0]]]]),
        gradient=torch.tensor([[[[4.0, -1.0]]]]),
        rows=torch.ones(1, 1, 1),
        columns=columns,
    )


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("gradcam", [3.75, 1.5, -2.25, 5.25]),  # mean gradient (4 - 1) / 4 = 0.75
        ("hirescam", [0.0, 8.0, 3.0, 0.0]),
        ("odam", [0.0, 8.0, 3.0, 0.0]),
        ("layercam", [0.0, 8.0, 0.0, 0.0]),
        # (2 * 4 + -3 * -1) / (5 + 2 + 3 + 7) = 11 / 17
        ("xgradcam", [55 / 17, 22 / 17, -33 / 17, 77 / 17]),
        # 4 / (2 + (5 + 2 + 7) * 4) = 4 / 58
        ("gradcam++", [20 / 58, 8 / 58, -12 / 58, 28 / 58]),
        # One channel: its centred self, mean 2.75.
        ("eigencam", [2.25, -0.75, -5.75, 4.25]),
        # g A = 0, 8, 3, 0 with mean 2.75.
        ("eigengradcam", [-2.75, 5.25, 0.25, -2.75]),
    ],
)
def test_methods_by_hand(method: str, expected: list[float]) -> None:
    function = METHODS.get(method)
    assert function is not None
    assert function(by_hand())[0, 0].tolist() == pytest.approx(expected, abs=1e-5)


def random_gradient(number: int) -> tuple[PooledGradient, Tensor]:
    """A PooledGradient of footprints of many sizes, and its dense gradient [N, C, h, w]."""
    generator = torch.Generator().manual_seed(2)
    channels, height, width = 3, 19, 23
    rows, columns = torch.zeros(number, 4, height), torch.zeros(number, 5, width)
    for n in range(number):
        for matrix, size in ((rows, height), (columns, width)):
            first, last = sorted(torch.randint(0, size + 1, (2,), generator=generator).tolist())
            part = matrix[n, :, first:last]
            part.copy_(torch.rand(part.shape, generator=generator))
    activation = torch.randn(channels, height, width, generator=generator)
    pooled = torch.einsum("npy,cyx,nqx->ncpq", rows, activation, columns)
    gradient = torch.randn(number, channels, 4, 5, generator=generator)
    dense = torch.einsum("npy,ncpq,nqx->ncyx", rows, gradient, columns)
    return PooledGradient(activation, pooled, gradient, rows, columns), dense


@pytest.mark.parametrize("budget", [None, 1, 5_000, 10**9])
def test_equal_to_the_dense_gradient(budget: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if budget is not None:  # as on an accelerator
        monkeypatch.setattr(handlers.cam.pooled, "WINDOW_BUDGET", budget)
        monkeypatch.setattr(PooledGradient, "each_window", MapGradient.each_window)
    ours, dense = random_gradient(40)
    activation = ours.activation
    assert torch.allclose(ours.mean(), dense.mean((2, 3)), atol=1e-5)
    assert torch.allclose(ours.inner(), (dense * activation).sum((2, 3)), atol=1e-3)
    sums = ours.channel_sums(lambda a, g: a.relu() * g**3)
    assert torch.allclose(sums, (activation.relu() * dense**3).sum((2, 3)), rtol=1e-4, atol=1e-3)
    maps = ours.elementwise(lambda a, g: (a * g.relu()).sum(1))
    assert torch.allclose(maps, (activation * dense.relu()).sum(1), atol=1e-4)


@pytest.mark.parametrize(
    "method", [name for name in METHODS.names() if evidence_of(name) is Evidence.GRADIENT]
)
def test_methods_make_no_difference_between_the_two_ways(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = METHODS.get(method)
    assert function is not None
    ours, _ = random_gradient(40)
    one_by_one = function(ours)
    monkeypatch.setattr(PooledGradient, "each_window", MapGradient.each_window)
    assert torch.allclose(function(ours), one_by_one, atol=1e-4)


def test_detections_beyond_the_map_have_no_gradient() -> None:
    gradient = by_hand()
    nothing = PooledGradient(
        gradient.activation,
        gradient.pooled,
        gradient.gradient,
        gradient.rows,
        torch.zeros_like(gradient.columns),
    )
    assert nothing.elementwise(lambda a, g: (a * g).sum(1)).tolist() == [[[0, 0, 0, 0]]]
    assert nothing.mean().tolist() == [[0]]

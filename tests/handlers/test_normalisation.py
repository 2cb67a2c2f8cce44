"""Gradients of batch normalisation, held against its formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from handlers.normalisation import exact_normalisation

SIZE = (1, 6, 5, 4)
Order = Callable[[Tensor], Tensor]


def as_rows(values: Tensor) -> Tensor:
    """The same values, as a view of rows of cells that stand among others."""
    rows = values.flatten(2).transpose(1, 2)
    padded = torch.cat([rows[:, :3], rows, rows[:, :2]], 1)
    return padded[:, 3:-2].transpose(1, 2).view_as(values)


ORDERS: dict[str, Order] = {
    "rows": as_rows,
    "rows alone": lambda x: x.flatten(2).mT.contiguous().mT.view_as(x),
    "turned": lambda x: x.mT.contiguous(memory_format=torch.channels_last).mT,
    "plain": Tensor.clone,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
}


def normalisation(seed: int = 0) -> nn.BatchNorm2d:
    generator = torch.Generator().manual_seed(seed)
    module = nn.BatchNorm2d(SIZE[1]).eval()
    for name in ("running_mean", "running_var", "weight", "bias"):
        values = torch.rand(SIZE[1], generator=generator) + 0.5
        getattr(module, name).data.copy_(values)
    return module


@pytest.mark.parametrize("size", [SIZE, (1, 6, 1, 4), (2, 6, 4, 1), (2, 6, 5, 4)])
@pytest.mark.parametrize("given", ORDERS)
@pytest.mark.parametrize("wanted", ORDERS)
def test_gradients_follow_the_formula(given: str, wanted: str, size: tuple[int, ...]) -> None:
    module = normalisation()
    assert module.running_var is not None
    x, gradient = torch.randn(size), torch.randn(size)
    factors = module.weight / (module.running_var + module.eps).sqrt()
    expected = gradient * factors[:, None, None]
    with exact_normalisation(module):
        leaf = ORDERS[given](x).requires_grad_()
        out = module(leaf)
        (one,) = torch.autograd.grad(out, leaf, ORDERS[wanted](gradient), retain_graph=True)
        several = torch.stack([ORDERS[wanted](gradient), 2 * ORDERS[wanted](gradient)])
        (both,) = torch.autograd.grad(out, leaf, several, is_grads_batched=True)
    torch.testing.assert_close(one, expected)
    torch.testing.assert_close(both, torch.stack([expected, 2 * expected]))


@pytest.mark.parametrize("size", [SIZE, SIZE[1:], (2, *SIZE[1:])])
@pytest.mark.parametrize("wanted", [lambda x: x, lambda x: x.flatten(-2).mT.contiguous().mT])
def test_instance_normalisation(size: tuple[int, ...], wanted: Order) -> None:
    module, x, gradient = nn.InstanceNorm2d(SIZE[1]), torch.randn(size), torch.randn(size)
    with exact_normalisation(module):
        leaf = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(module(leaf), leaf, wanted(gradient).view(size))
    leaf = x.clone().requires_grad_()
    middle = leaf.mean((-2, -1), keepdim=True)
    variance = leaf.var((-2, -1), keepdim=True, correction=0)
    (expected,) = torch.autograd.grad((leaf - middle) / (variance + 1e-5).sqrt(), leaf, gradient)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


class Conditional(nn.BatchNorm2d):
    """As others write them: more goes in, more comes out."""

    def forward(self, input: Tensor, scale: float) -> tuple[Tensor, float]:  # type: ignore[override]
        return super().forward(input) * scale, scale


def test_modules_are_called_as_they_are_elsewhere() -> None:
    x, own, named = torch.randn(SIZE, requires_grad=True), Conditional(SIZE[1]), normalisation()
    with exact_normalisation(nn.ModuleList([own, named])):
        assert own.eval()(x, scale=2.0)[1] == 2.0
        torch.testing.assert_close(named(input=x), named(x))


def test_rows_behind_a_normalisation() -> None:
    """As RT-DETR has it: a projection whose cells become rows."""
    network = nn.Sequential(nn.Conv2d(SIZE[1], SIZE[1], 1), normalisation(1), nn.SiLU()).eval()
    x, weights = torch.randn(SIZE), torch.randn(1, SIZE[2] * SIZE[3] + 4, SIZE[1])

    def slope(leaf: Tensor) -> Tensor:
        rows = network(leaf).flatten(2).transpose(1, 2)
        return (torch.cat([rows[:, :4], rows], 1) * weights).sum()

    leaf = x.clone().requires_grad_()
    with exact_normalisation(network):
        (found,) = torch.autograd.grad(slope(leaf), leaf)
    network, weights = network.double(), weights.double()
    step = torch.randn(SIZE, dtype=torch.float64)
    with torch.no_grad():
        expected = (slope(x.double() + 1e-5 * step) - slope(x.double() - 1e-5 * step)) / 2e-5
    torch.testing.assert_close((found * step).sum(), expected, rtol=1e-4, atol=1e-4)


def test_nothing_stays() -> None:
    module = normalisation()
    with pytest.raises(ValueError, match="got 2D input"), exact_normalisation(module):
        module(torch.zeros(2, SIZE[1]))
    assert not module._forward_hooks
    assert not module._forward_pre_hooks
    leaf = torch.randn(SIZE, requires_grad=True)
    with exact_normalisation(module):
        out = module(leaf)
    # What was opened counts, not what is open when the gradient is asked for.
    (found,) = torch.autograd.grad(out, leaf, as_rows(torch.ones(SIZE)))
    assert module.running_var is not None
    factors = module.weight / (module.running_var + module.eps).sqrt()
    torch.testing.assert_close(found, factors[:, None, None].expand(SIZE).reshape(SIZE))

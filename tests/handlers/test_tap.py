from __future__ import annotations

import pytest
import torch
from torch import nn

from handlers.schema import RequestError
from handlers.tap import (
    Layer,
    NonFiniteError,
    Tap,
    all_finite,
    check_weights,
    finite,
    masked,
    undisturbed,
)


def network() -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten())
    nn.init.constant_(layers[0].weight, 2.0)  # type: ignore[arg-type]
    return layers


def test_a_tap_sees_what_an_in_place_relu_overwrites() -> None:
    layers = network()
    with Tap(Layer("0", layers[0])) as tap:
        made = layers(torch.tensor([[[[-1.0, 3.0]]]]))
    (gradient,) = torch.autograd.grad(made.sum(), tap.map([made]))
    assert tap.map().tolist() == [[[[-2.0, 6.0]]]]
    assert gradient.tolist() == [[[[0.0, 1.0]]]]
    assert not layers[0]._forward_hooks


@pytest.mark.parametrize(
    ("name", "message"),
    [("2", r"2, which gives \[1, 2\]"), ("3", "3, which does not run for this target")],
)
def test_a_tap_refuses_what_is_no_map(name: str, message: str) -> None:
    layers = network()
    module = layers[2] if name == "2" else nn.ReLU()
    with Tap(Layer(name, module)) as tap:
        layers(torch.zeros(1, 1, 1, 2))
    with pytest.raises(RequestError, match=message):
        tap.map()


def test_undisturbed_restores_also_after_an_error() -> None:
    layers = network()
    layers.train()
    layers[1].eval()
    layers[0].weight.requires_grad_(False)
    tuned = nn.Linear(1, 1)
    both = nn.ModuleList([layers, tuned])
    with undisturbed(both):
        assert not any(module.training for module in both.modules())
        assert not any(parameter.requires_grad for parameter in both.parameters())
    with pytest.raises(RuntimeError, match="shapes"), undisturbed(both):
        tuned(torch.zeros(1, 2))
    assert [module.training for module in layers.modules()] == [True, True, False, True]
    assert [parameter.requires_grad for parameter in both.parameters()] == [False, True, True]


def test_masked_convolutions_see_zero_off_the_map() -> None:
    convolution = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(convolution.weight)
    mask = torch.tensor([[[[0.0, 1.0, 1.0]]]])
    with masked([convolution], mask):
        assert convolution(torch.ones(1, 1, 1, 3)).tolist() == [[[[1.0, 2.0, 2.0]]]]
    assert convolution(torch.ones(1, 1, 1, 3)).tolist() == [[[[2.0, 3.0, 2.0]]]]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_named(value: float) -> None:
    layers = network()
    check_weights(layers)
    with finite(layers):
        layers(torch.ones(1, 1, 1, 1))
    nn.init.constant_(layers[0].weight, value)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError, match=r"weights of 0\.weight"):
        check_weights(layers)
    with pytest.raises(NonFiniteError, match="activation of 0 is not finite"), finite(layers):
        layers(torch.ones(1, 1, 1, 1))
    assert not layers[0]._forward_hooks


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([1.0, -2.0], True),
        ([], True),
        ([3e38, 3e38], True),  # though their sum is not
        ([torch.inf, -torch.inf], False),
        ([0.0, torch.nan], False),
        ([0.0, -torch.inf], False),
    ],
)
def test_all_finite(values: list[float], finite: bool) -> None:
    assert all_finite([torch.zeros(2), torch.tensor(values)]) is finite
    turned = torch.tensor([complex(0, each) for each in values])
    assert all_finite([torch.ones(1).long(), turned, torch.ones(1).double()]) is finite

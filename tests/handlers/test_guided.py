"""Guided backpropagation against Captum, pytorch-grad-cam and a backward pass by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop
from pytorch_grad_cam import GuidedBackpropReLUModel
from torch import Tensor, nn

from handlers.detectors.registry import build_model
from handlers.guided import guided_backpropagation, guided_gradcam, rectifiers
from handlers.images import Geometry
from handlers.tap import NonFiniteError
from tests.conftest import calibrated, random_picture

# Of each network the pixels a side, and how many nn.ReLU it has.
EIGHT = {
    "vgg16": (48, 15),
    "vgg19": (48, 18),
    "resnet50": (64, 17),
    "resnet101": (64, 34),
    "densenet121": (64, 120),
    "inception_v3": (96, 0),
    "mobilenet_v2": (64, 0),
    "shufflenet_v2_x1_0": (64, 37),
}

# Captum says that it sets hooks, and that it makes the input require gradients.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")


def network(architecture: str, size: int) -> tuple[Any, Tensor]:
    """A classifier with statistics of real activations, and an input."""
    torch.manual_seed(2)
    options = {"size": size}
    if architecture == "inception_v3":
        options["aux_logits"] = False
    model = build_model(architecture, 5, options)
    inputs = torch.stack([random_picture(size, size, seed) / 127.5 - 1 for seed in range(4)])
    calibrated(model, inputs)
    return model.eval().requires_grad_(False), inputs[:1]


def assert_guided(architecture: str, size: int, number: int) -> None:
    model, inputs = network(architecture, size)
    assert len(rectifiers(model)) == number
    found = guided_backpropagation(model, lambda x: model(x)[0, [3, 1]], inputs)
    # Captum's hooks refuse modules in place; pytorch-grad-cam's replace them for good.
    plain = copy.deepcopy(model)
    for module in rectifiers(plain):
        module.inplace = False
    for place, label in enumerate((3, 1)):
        expected = GuidedBackprop(plain).attribute(inputs.clone(), target=label)[0]
        largest = expected.abs().max()
        assert largest > 0
        torch.testing.assert_close(found[place] / largest, expected / largest, atol=1e-4, rtol=0)
    theirs = GuidedBackpropReLUModel(plain, device="cpu")(inputs.clone(), target_category=1)
    np.testing.assert_allclose(
        found[1].permute(1, 2, 0) / largest, theirs / largest.numpy(), atol=1e-4
    )


@pytest.mark.parametrize("architecture", EIGHT)
def test_it_is_that_of_captum_and_pytorch_grad_cam(architecture: str) -> None:
    assert_guided(architecture, *EIGHT[architecture])


@pytest.mark.full
@pytest.mark.parametrize("architecture", EIGHT)
def test_at_full_size(architecture: str) -> None:
    size = 299 if architecture == "inception_v3" else 224
    assert_guided(architecture, size, EIGHT[architecture][1])


class Reused(nn.Module):
    """One ReLU, in place, three times, and an operation in place on what follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout()

    def forward(self, inputs: Tensor) -> Tensor:
        one = self.relu(self.first(inputs))
        two = self.relu(self.second(one)) - 0.5 * one
        two -= 0.1
        logits: Tensor = self.dropout(self.relu(two)).sum((2, 3))
        return logits


def by_hand(model: Reused, inputs: Tensor, label: int) -> Tensor:
    """The same backwards, step by step."""
    first, second = model.first, model.second
    before = first(inputs)
    one = before.relu()
    between = second(one)
    two = between.relu() - 0.5 * one - 0.1
    gradient = torch.zeros_like(two)
    gradient[:, label] = 1
    gradient = gradient.clamp(min=0) * (two > 0)
    inner = gradient.clamp(min=0) * (between > 0)
    onto = torch.einsum("bohw,oi->bihw", inner, second.weight[:, :, 0, 0]) - 0.5 * gradient
    onto = onto.clamp(min=0) * (before > 0)
    found: Tensor = nn.functional.conv_transpose2d(onto, first.weight)[0]
    return found


def test_a_relu_in_place_that_is_used_several_times() -> None:
    torch.manual_seed(1)
    model, inputs = Reused(), torch.randn(1, 3, 9, 9)
    found = guided_backpropagation(model, lambda x: model(x)[0, :2], inputs)
    with torch.no_grad():
        for label in range(2):
            torch.testing.assert_close(found[label], by_hand(model, inputs, label))


def test_the_network_is_left_as_it_was() -> None:
    model, inputs = Reused(), torch.randn(1, 3, 9, 9)

    def fails(x: Tensor) -> Tensor:
        model(x)
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        guided_backpropagation(model, fails, inputs)
    assert model.training
    assert not model.relu._forward_hooks
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not inputs.requires_grad


@pytest.mark.parametrize(
    ("scalars", "error", "message"),
    [
        (lambda x: x.sum(), ValueError, r"scalars gave \[\], requires_grad True; expected \[N\]"),
        (lambda x: x.detach().sum((1, 2, 3)), ValueError, "requires_grad False"),
        (lambda x: (x - x).sqrt().sum((1, 2, 3)), NonFiniteError, "not finite"),
    ],
)
def test_scalars_that_cannot_be(
    scalars: Callable[[Tensor], Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        guided_backpropagation(Reused(), scalars, torch.ones(1, 3, 9, 9))


def test_guided_gradcam_is_the_product_with_the_upsampled_map() -> None:
    gradient, heatmap = torch.randn(3, 24, 36), torch.rand(4, 6)
    frame = Geometry(360, 240, 36.0, 24.0, 0.1, 0.1, clipped=True)
    found = guided_gradcam(gradient, heatmap, frame, frame)
    upsampled = nn.functional.interpolate(heatmap[None, None], (24, 36), mode="bilinear")[0]
    torch.testing.assert_close(found, gradient * upsampled)

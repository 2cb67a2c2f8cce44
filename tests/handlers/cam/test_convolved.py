from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from handlers.cam import convolved
from handlers.cam.convolved import Behind, ConvolvedGradient
from handlers.cam.gradient import DenseGradient
from handlers.cam.registry import METHODS, Evidence, evidence_of


def through(convolution: nn.Conv2d, activation: Tensor, number: int) -> Behind:
    """Random gradients on what the convolution makes of the map, and autograd's way back."""
    leaf = activation[None].requires_grad_()
    given = convolution(leaf)
    gradient = torch.randn(number, *given.shape[1:])

    def back(gradient: Tensor) -> Tensor:
        several = [
            torch.autograd.grad(given, leaf, each[None], retain_graph=True)[0] for each in gradient
        ]
        return torch.cat(several)

    return Behind(gradient, convolution, back)


def gradients(
    kernel: tuple[int, int], dilation: int, towers: int, size: tuple[int, int] = (9, 7)
) -> tuple[ConvolvedGradient, DenseGradient]:
    torch.manual_seed(0)
    activation = torch.randn(5, *size)
    padding = (dilation * (kernel[0] // 2), dilation * (kernel[1] // 2))
    behind = [
        through(
            nn.Conv2d(5, outputs, kernel, padding=padding, dilation=dilation), activation.clone(), 3
        )
        for outputs in (4, 6)[:towers]
    ]
    ours = ConvolvedGradient(activation, behind)
    return ours, DenseGradient(activation, torch.stack([b.back(b.gradient) for b in behind]).sum(0))


@pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), 1), ((1, 1), 1), ((3, 5), 2)])
@pytest.mark.parametrize("towers", [1, 2])
@pytest.mark.parametrize("strip", [1, 300, 10**6])
def test_equal_to_the_dense_gradient(
    kernel: tuple[int, int], dilation: int, towers: int, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolved, "STRIP_FLOATS", strip)
    ours, dense = gradients(kernel, dilation, towers)
    assert len(ours) == 3
    torch.testing.assert_close(ours.mean(), dense.mean())
    torch.testing.assert_close(ours.product(), dense.product(), atol=1e-4, rtol=1e-4)
    places = torch.tensor([2, 0])
    torch.testing.assert_close(ours.dense(places), dense.dense(places))


@pytest.mark.parametrize("size", [(2, 2), (1, 1), (3, 4)])
@pytest.mark.parametrize(("kernel", "dilation"), [((7, 7), 1), ((3, 3), 3), ((1, 7), 1)])
def test_kernels_that_are_larger_than_the_map(
    kernel: tuple[int, int], dilation: int, size: tuple[int, int]
) -> None:
    ours, dense = gradients(kernel, dilation, 1, size)
    torch.testing.assert_close(ours.mean(), dense.mean())
    torch.testing.assert_close(ours.product(), dense.product(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "method", [name for name in METHODS.names() if evidence_of(name) is Evidence.GRADIENT]
)
def test_every_method_says_the_same(method: str) -> None:
    ours, dense = gradients((3, 3), 1, 2)
    function = METHODS.get(method)
    assert function is not None
    torch.testing.assert_close(function(ours), function(dense), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["odam", "gradcam"])
def test_what_needs_no_whole_gradient_does_without(method: str) -> None:
    ours, _ = gradients((3, 3), 1, 2)
    function = METHODS.get(method)
    assert function is not None
    function(ours)
    assert "gradient" not in vars(ours)

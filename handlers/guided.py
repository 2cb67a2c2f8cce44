"""Guided backpropagation (Springenberg et al. 2015) and Guided Grad-CAM (Selvaraju et al. 2017):
which pixels of the network input, not which cells of a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from handlers.images import Geometry
from handlers.normalisation import exact_normalisation
from handlers.precision import exact_float32
from handlers.tap import NonFiniteError, all_finite, undisturbed

# From the network input [1, 3, h, w] to N scalars [N], e.g. `lambda x: model(x)[0, [label]]`.
Scalars = Callable[[Tensor], Tensor]


def rectifiers(model: nn.Module) -> list[nn.ReLU]:
    """The modules at which guided backpropagation differs from the plain gradient: every nn.ReLU.

    ReLU6 and functions such as F.relu are not among them, as in Captum and pytorch-grad-cam. So
    torchvision's Inception3, GoogLeNet, MobileNetV2 and networks of SiLU or GELU have none.
    """
    return [module for module in model.modules() if isinstance(module, nn.ReLU)]


def guided_backpropagation(model: nn.Module, scalars: Scalars, inputs: Tensor) -> Tensor:
    """d scalar_n / d inputs, except that every nn.ReLU of `model` passes back only what is
    positive; without an nn.ReLU it is the plain gradient.

    inputs: float32 [1, 3, h, w]. scalars: runs `model` on them; it runs in eval mode. Gives
    [N, 3, h, w], signed. Raises ValueError for scalars of another shape than [N], NonFiniteError
    for a gradient that is not finite.
    """
    with (
        undisturbed(model),
        guided(model),
        exact_normalisation(model),
        exact_float32(),
        torch.enable_grad(),
    ):
        leaf = inputs.detach().clone().requires_grad_()
        values = scalars(leaf)
        if values.dim() != 1 or not values.requires_grad:
            raise ValueError(
                f"scalars gave {list(values.shape)}, requires_grad {values.requires_grad}; expected"
                " [N], differentiable, e.g. model(x)[0, [label]]"
            )
        last = len(values) - 1
        found = [
            torch.autograd.grad(value, leaf, retain_graph=number < last)[0][0]
            for number, value in enumerate(values)
        ]
    gradients = torch.stack(found) if found else leaf.new_zeros(0, *leaf.shape[1:])
    if not all_finite([gradients]):
        raise NonFiniteError("a guided gradient is not finite (NaN or infinity)")
    return gradients


def guided_gradcam(
    gradient: Tensor, heatmap: Tensor, geometry: Geometry, frame: Geometry
) -> Tensor:
    """The guided gradient [3, h, w] times the Grad-CAM map [h', w'], upsampled bilinearly.

    geometry: places the map on the picture; frame: places the network input there.
    """
    height, width = gradient.shape[-2:]
    return gradient * geometry.onto(heatmap.cpu(), frame, height, width).to(gradient)


@contextmanager
def guided(model: nn.Module, wanted: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Meanwhile what every nn.ReLU of `model` gives takes back positive gradients only, also of a
    module that is used several times; where `wanted` is false when they come back, all."""

    def clamp(gradient: Tensor) -> Tensor:
        return gradient.clamp(min=0) if wanted() else gradient

    def rectify(module: nn.Module, arguments: object, output: Tensor) -> None:
        # A hook on the output, not on the module, works for a ReLU in place, too.
        if output.requires_grad:
            output.register_hook(clamp)

    with ExitStack() as stack:
        for module in rectifiers(model):
            stack.callback(module.register_forward_hook(rectify).remove)
        yield

"""Methods that weigh whole channels by a function of their gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.linalg import vector_norm

from handlers.cam.gradient import MapGradient
from handlers.cam.registry import METHODS

# Floats, 4 MiB of float32.
BUFFER = 2**20


@METHODS.register("gradcam")
def gradcam(gradient: MapGradient) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017): sum_k mean(g_k) A_k."""
    return gradient.weighted(gradient.mean())


@METHODS.register("gradcam++")
def gradcam_plus_plus(gradient: MapGradient) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al. 2018): w_k = sum(alpha ReLU(g)).

    The paper's alpha = g^2 / (2 g^2 + sum(A) g^3) is 1 / (2 + sum(A) g). It assumes A >= 0, but
    pyramid maps are signed and would let the denominator pass through zero, so sum(A) is taken over
    ReLU(A): the same on the maps of the paper, and at least 2 wherever ReLU(g) > 0.
    """
    return gradient.weighted(gradcam_plus_plus_weights(gradient))


def gradcam_plus_plus_weights(gradient: MapGradient) -> Tensor:
    """The weights [N, C] of Grad-CAM++."""
    weight = gradcam_plus_plus_weight(gradient)
    return gradient.channel_sums(lambda _, g: weight(g))


def gradcam_plus_plus_weight(gradient: MapGradient) -> Callable[[Tensor], Tensor]:
    """What a cell's gradient g [..., C, a, b] adds to its channel's weight: alpha ReLU(g)."""
    # A sum over |A| would be quicker, but cancels where a channel is negative.
    total = _positive_sums(gradient.activation)[:, None, None]

    def weight(g: Tensor) -> Tensor:
        positive = g.relu()
        return positive / (total * positive).add_(2)

    return weight


def _positive_sums(activation: Tensor) -> Tensor:
    """sum over space of ReLU(A) [C, h, w], of which no gradient is asked for: [C]."""
    # A processor takes several times as long to get new memory of a large map's size.
    cells = max(1, activation.shape[1:].numel())
    channels = max(1, BUFFER // cells) if activation.device.type == "cpu" else len(activation)
    buffer = torch.empty_like(activation[:channels])
    parts = []
    for own in activation.split(channels):
        positive = torch.clamp(own, min=0, out=buffer[: len(own)])
        parts.append(positive.sum((-2, -1)))
    return torch.cat(parts)


@METHODS.register("xgradcam")
def xgradcam(gradient: MapGradient) -> Tensor:
    """XGrad-CAM (Fu et al. 2020): w_k = sum(g A) / sum(A).

    The denominator is taken over |A|: the same on the non-negative maps of the paper, and it does
    not change sign on signed pyramid maps. A channel that is zero everywhere weighs nothing.
    """
    total = vector_norm(gradient.activation, 1, (-2, -1))
    weights: Tensor = gradient.inner() / total.masked_fill(total == 0, 1)
    return gradient.weighted(weights)

"""Gaussians: a blur, of pictures, of noise and of heatmaps, and a bell."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(values: Tensor, sigma: float, across: float | None = None) -> Tensor:
    """Float [C, H, W] blurred by a Gaussian of standard deviation `sigma` cells, cut off at three
    of them; beyond the border the outermost cells go on. across: along rows, where that is another
    than along columns. 0 changes nothing."""
    blurred = _along_columns(values, sigma)
    return _along_columns(blurred.mT, sigma if across is None else across).mT


def bell(places: Tensor, middle: float, sigma: float) -> Tensor:
    """A Gaussian of standard deviation `sigma` about `middle`, where it is 1, at places [n]:
    float64 [n]."""
    return torch.exp(-((places.double() - middle) ** 2) / (2 * sigma**2))


def _along_columns(values: Tensor, sigma: float) -> Tensor:
    if sigma <= 0:
        return values
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(values[:, None], (0, 0, reach, reach), mode="replicate")
    return F.conv2d(padded, kernel[None, None, :, None])[:, 0]

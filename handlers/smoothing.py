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


def gaussian_blurs(values: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Float [N, H, W], each blurred as by `gaussian_blur`, by sigmas of its own (float [N]) down
    and across: all of them as two products of matrices."""
    return _weights(down, values.shape[1]) @ values @ _weights(across, values.shape[2]).mT


def bell(places: Tensor, middle: float, sigma: float) -> Tensor:
    """A Gaussian of standard deviation `sigma` about `middle`, where it is 1, at places [n]:
    float64 [n]."""
    return torch.exp(-((places.double() - middle) ** 2) / (2 * sigma**2))


def _weights(sigmas: Tensor, cells: int) -> Tensor:
    """How much of each of so many cells in a row goes into each: [N, cells, cells]."""
    if cells == 1:
        return sigmas.new_ones(len(sigmas), 1, 1)
    reach = (3 * sigmas).ceil()[:, None]
    most = max(int(reach.max()), cells - 1)
    steps = torch.arange(-most, most + 1, device=sigmas.device)
    # A sigma of zero is that of a single cell; any will do for the division.
    kernel = torch.exp(-(steps**2) / (2 * sigmas.clamp(min=1e-6)[:, None] ** 2))
    kernel = torch.where(steps.abs() <= reach, kernel, 0)
    kernel = kernel / kernel.sum(1, keepdim=True)
    # In the row of cell i the kernel stands i cells further to the right; what would lie beyond the
    # border is the outermost cells'.
    starts = most - torch.arange(cells, device=steps.device)
    weights = kernel.unfold(1, cells, 1)[:, starts]
    beyond = kernel.cumsum(1)[:, starts]
    weights[..., 0], weights[..., -1] = beyond, beyond.flip(1)
    return weights


def _along_columns(values: Tensor, sigma: float) -> Tensor:
    if sigma <= 0:
        return values
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(values[:, None], (0, 0, reach, reach), mode="replicate")
    return F.conv2d(padded, kernel[None, None, :, None])[:, 0]

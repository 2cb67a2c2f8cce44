"""A Gaussian blur, of pictures and of noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(values: Tensor, sigma: float) -> Tensor:
    """Float [C, H, W] blurred by a Gaussian of standard deviation `sigma` cells, cut off at three
    of them; beyond the border the outermost cells go on. sigma 0 changes nothing."""
    if sigma <= 0:
        return values
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(values[:, None], (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(padded, kernel[None, None, None, :])
    return F.conv2d(across, kernel[None, None, :, None])[:, 0]

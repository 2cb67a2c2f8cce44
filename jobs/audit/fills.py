"""What stands in the place of what is taken out of a picture, so that no hole gives itself away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The exponent of a superellipse: 2 is an ellipse, more come nearer to the box.
ROUNDNESS = 4.0
# The share of a half side over which a pasted object fades into what is around it.
FADING = 0.12


def filled(picture: Tensor, hidden: Tensor) -> Tensor:
    """The picture with what is hidden filled from around it, smoothly: uint8 [3, H, W].

    Colours of the known pixels are averaged over ever larger squares, and each hidden pixel takes
    the smallest that knows something ("push-pull", Gortler et al. 1996). Where nothing is known it
    is middle grey. picture: uint8 [3, H, W]. hidden: bool [H, W].
    """
    known = (~hidden).float()[None, None]
    values = picture.float()[None] * known
    levels = [(values, known)]
    while max(known.shape[2:]) > 1:
        values, known = (F.avg_pool2d(each, 2, ceil_mode=True) for each in levels[-1])
        levels.append((values, known))
    guess = torch.full((1, 3, 1, 1), 128.0)
    for values, known in reversed(levels):
        guess = F.interpolate(guess, size=known.shape[2:], mode="bilinear", align_corners=False)
        # A square that is known by a quarter is trusted.
        trust = known if known is levels[0][1] else (4 * known).clamp(max=1)
        guess = torch.lerp(guess, values / known.clamp(min=1e-6), trust)
    return guess[0].round().clamp(0, 255).to(torch.uint8)


def resized(picture: Tensor, height: int, width: int) -> Tensor:
    """A picture, uint8 [3, H, W], of another size: uint8 [3, height, width]."""
    found = F.interpolate(
        picture.float()[None], size=(height, width), mode="bilinear", antialias=True
    )
    return found[0].round().clamp(0, 255).to(torch.uint8)


def exchanged(picture: Tensor, box: tuple[float, float, float, float], other: Tensor) -> Tensor:
    """The picture with another object in the place of the one in a box: uint8 [3, H, W].

    other: uint8 [3, h, w], the other's own box; it is stretched. It covers the box but for its
    corners, and fades out at its edge.
    """
    height, width = picture.shape[1:]
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = (
        min(width, max(left + 1, round(box[2]))),
        min(height, max(top + 1, round(box[3]))),
    )
    if right <= left or bottom <= top:
        return picture
    down, across = bottom - top, right - left
    y, x = (2 * (torch.arange(n) + 0.5) / n - 1 for n in (down, across))
    radius = (y[:, None].abs() ** ROUNDNESS + x[None].abs() ** ROUNDNESS) ** (1 / ROUNDNESS)
    share = ((1 - radius) / FADING + 0.5).clamp(0, 1)
    found = picture.clone()
    area = found[:, top:bottom, left:right]
    mixed = torch.lerp(area.float(), resized(other, down, across).float(), share)
    found[:, top:bottom, left:right] = mixed.round().to(torch.uint8)
    return found

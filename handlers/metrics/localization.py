"""How maps lie on their objects: pointing game, energy, VEA, ODI, compactness, entropy.

Maps [N, H, W] are of a picture's own pixels, all boxes of it at once, on whatever device they are;
pixel (row, column) covers x from column to column + 1 and its middle stands for it. A map with
nothing in it, the same everywhere, points nowhere and has energy 0. Sources: pointing game, Zhang
et al. 2018; energy, Wang et al. 2020 (Score-CAM); VEA, ODI and compactness, Zhao and Chan 2023
(ODAM).

The rows of a job have `handlers.metrics.pointing` instead: the peak, and this energy, on the map's
own cells, without a picture's worth of pixels for every box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# VEA's, of a map over its maximum.
THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))
# What `localization` gives: always; and with true objects, not a number where an object has no mask
# or, for odi, no other object is to be told from it.
BY_BOX = ("pointing", "energy", "vea_box", "compactness")
BY_OBJECTS = ("pointing_mask", "energy_mask", "vea", "odi")


@dataclass(frozen=True)
class Regions:
    """What N maps of a picture of H x W pixels are held against.

    boxes: [N, 4], x1, y1, x2, y2 in pixels.
    masks: bool [N, H, W], without a pixel where an object has none. objects: bool [H, W], the
        pixels of any true object of the picture. None both where the truth is not known.
    """

    boxes: Tensor
    masks: Tensor | None = None
    objects: Tensor | None = None


def localization(heat: Tensor, regions: Regions) -> dict[str, Tensor]:
    """The figures of BY_BOX and, where the truth is known, BY_OBJECTS: [N] each."""
    boxes = regions.boxes
    filled = box_masks(boxes, *heat.shape[1:])
    found = {
        "pointing": points_in_box(heat, boxes),
        "energy": energy(heat, box_cover(boxes, *heat.shape[1:])),
        "vea_box": vea(heat, filled),
        "compactness": compactness(heat, boxes),
    }
    if regions.masks is None or regions.objects is None:
        return found
    masks = regions.masks
    known = masks.flatten(1).any(1)
    of_masks = {
        "pointing_mask": points_in_mask(heat, masks),
        "energy_mask": energy(heat, masks),
        "vea": vea(heat, masks),
    }
    found |= {name: each.masked_fill(~known, math.nan) for name, each in of_masks.items()}
    own = torch.where(known[:, None, None], masks, filled)
    return found | {"odi": odi(heat, own, regions.objects & ~own)}


def box_cover(boxes: Tensor, height: int, width: int) -> Tensor:
    """How much of each pixel lies inside each box [N, 4]: [N, height, width], 0 ... 1."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return _covered(y1, y2, height)[:, :, None] * _covered(x1, x2, width)[:, None]


def box_masks(boxes: Tensor, height: int, width: int) -> Tensor:
    """The pixels whose middles lie in each box [N, 4]: bool [N, height, width]."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return _middles_in(y1, y2, height)[:, :, None] & _middles_in(x1, x2, width)[:, None]


def points_in_box(heat: Tensor, boxes: Tensor) -> Tensor:
    """The pointing game: 1 where the middle of a map's largest pixel (the first of equals) lies in
    its box [N, 4], edges included, else 0: [N]."""
    row, column, anything = _peaks(heat)
    x, y = column + 0.5, row + 0.5
    x1, y1, x2, y2 = boxes.unbind(1)
    return ((x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2) & anything).double()


def points_in_mask(heat: Tensor, masks: Tensor) -> Tensor:
    """The pointing game with masks, bool [N, H, W]: [N], 0 or 1."""
    row, column, anything = _peaks(heat)
    return (masks[torch.arange(len(heat), device=heat.device), row, column] & anything).double()


def energy(heat: Tensor, inside: Tensor, counted: Tensor | None = None) -> Tensor:
    """The share of each map's sum that lies inside, after its least value is subtracted: [N], 0 ...
    1; 0 for a map with nothing in it.

    heat: [N, h, w] on any grid. inside: [N, h, w], how much of each cell lies inside, 0 ... 1, or a
    mask. counted: likewise, how much of it counts at all; None for all of every cell.
    """
    least = heat if counted is None else heat.masked_fill(counted <= 0, math.inf)
    heat = heat - least.amin((1, 2), keepdim=True)
    whole = (heat if counted is None else heat.where(counted > 0, 0) * counted).sum(
        (1, 2), dtype=torch.float64
    )
    own = (heat.where(inside > 0, 0) * inside).sum((1, 2), dtype=torch.float64)
    return torch.where(whole > 0, own / whole, 0.0)


def vea(heat: Tensor, masks: Tensor) -> Tensor:
    """Visual explanation accuracy: the mean IoU of the pixels over a threshold with the mask, over
    THRESHOLDS of each map divided by its maximum: [N], 0 ... 1.

    masks: bool [N, H, W]. A map of zeros has no pixels over any threshold, so 0.
    """
    most = heat.amax((1, 2), keepdim=True)
    scaled = torch.where(most > 0, heat / most, 0.0)
    total = torch.zeros(len(heat), dtype=torch.float64, device=heat.device)
    for threshold in THRESHOLDS:
        over = scaled > threshold
        union = (over | masks).sum((1, 2))
        total += (over & masks).sum((1, 2)) / union.clamp(min=1).double()
    return total / len(THRESHOLDS)


def odi(heat: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Object discrimination index: the map's sum in the other objects over its sum in all objects,
    less is better: [N], 0 ... 1; not a number where there are no others, or nothing in any.

    own: bool [N, H, W], each map's object. others: likewise, the picture's others; what both have
    is its own's, so that a map that stays within its own object has 0 though another's box overlaps
    it.
    """
    apart = others & ~own
    beside = torch.where(apart, heat, 0).sum((1, 2), dtype=torch.float64)
    every = beside + torch.where(own, heat, 0).sum((1, 2), dtype=torch.float64)
    told = apart.flatten(1).any(1) & (every > 0)
    return torch.where(told, beside / every, math.nan)


def compactness(heat: Tensor, boxes: Tensor) -> Tensor:
    """How far a map H lies about its peak, in halves of its box's diagonal: the root of
    sum(H |p - p_max|^2) / ((w^2 + h^2) / 4 sum(H)): [N], at least 0; less is more compact.

    boxes: [N, 4]; w and h are their sides, so that maps of large and small boxes compare. Not a
    number for a map of zeros, or a box that is a point.
    """
    row, column, _ = _peaks(heat)
    # The square of a distance is a sum of one for the row and one for the column.
    down = heat.sum(2, dtype=torch.float64)
    across = heat.sum(1, dtype=torch.float64)
    squares = (down * _squares(row, heat.shape[1])).sum(1)
    squares = squares + (across * _squares(column, heat.shape[2])).sum(1)
    sides = (boxes[:, 2:] - boxes[:, :2]).double()
    total = (sides**2).sum(1) / 4 * down.sum(1)
    return torch.where(total > 0, (squares / total).sqrt(), math.nan)


def entropy(heat: Tensor) -> Tensor:
    """How scattered maps [..., h, w] of any grid are: the Shannon entropy of each cell's share of
    the sum over that of a map that is the same everywhere: [...], 0 (all in one cell) ... 1. 0 for
    a map of zeros. Values are at least 0."""
    cells = heat.flatten(-2).double()
    total = cells.sum(-1, keepdim=True)
    shares = torch.where(total > 0, cells / total, 0.0)
    most = math.log(max(cells.shape[-1], 2))
    return -torch.xlogy(shares, shares).sum(-1).clamp(max=0) / most


def _peaks(heat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row and column, int64 [N], of each map's largest pixel, and whether it stands out: [N]."""
    flat = heat.flatten(1)
    place = flat.argmax(1)
    width = heat.shape[2]
    return place // width, place % width, flat.amax(1) > flat.amin(1)


def _covered(start: Tensor, end: Tensor, pixels: int) -> Tensor:
    """How much of each of so many pixels lies from start to end [N]: [N, pixels]."""
    left = torch.arange(pixels, device=start.device)
    right = torch.minimum(left + 1, end[:, None])
    return (right - torch.maximum(left, start[:, None])).clamp(min=0)


def _middles_in(start: Tensor, end: Tensor, pixels: int) -> Tensor:
    middles = torch.arange(pixels, device=start.device) + 0.5
    return (start[:, None] <= middles) & (middles <= end[:, None])


def _squares(place: Tensor, pixels: int) -> Tensor:
    """Squares of the distances of so many pixels from places [N]: [N, pixels]."""
    return (torch.arange(pixels, device=place.device) - place[:, None]).double() ** 2

"""D-CLOSE: masks made of a picture's segments, at several scales."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from handlers.cam.masks import MaskedPictures, cell_means, draws, exact_sum, smooth
from handlers.cam.registry import METHODS, Evidence, looks_at
from handlers.cam.superpixels import slic
from handlers.time_limit import each_alike

# As the authors' code has them: segments of each scale, coarsest first, the share that is shown,
# how much larger than the picture a mask is made before it is cut, and how many masks.
SCALES = (150, 300, 600, 1200, 2400)
SHOWN = 0.5
ENLARGED = 3.2
DCLOSE_MASKS = 4000


@METHODS.register("dclose")
@looks_at(Evidence.MASKS)
def dclose(evidence: MaskedPictures) -> Tensor:
    """D-CLOSE (Truong et al. 2023): maps from masks of the picture's segments, fused over scales.

    The picture is cut into 150, 300, 600, 1200 and 2400 superpixels (`slic`). A mask shows each
    segment of one scale with probability 0.5, is made 1 + 2.2 times as large as the picture by
    bilinear interpolation, and cut to it at a random place. 4000 masks, as many for each scale.
    A scale's map is sum_i s_i M_i / sum_i M_i, place by place, then from 0 (its least value) to 1
    (its largest). From the finest scale on, H becomes (H + S) S with the map S of the next coarser.

    Where paper and code leave it open: some accounts have four scales, the authors' code, followed
    here, five. That code draws segments anew for each batch of
    masks only; here for each mask, so that the batch does not matter. It compares a box with those
    found of its own category only; here s_i is D-RISE's, which compares the categories' scores.
    A scale at which the map is the same everywhere (nothing was found, or there are fewer masks
    than scales) would wipe out all others and is left out. Where no mask shows anything S is 0.
    """
    number = evidence.masks or DCLOSE_MASKS
    generator = torch.Generator().manual_seed(evidence.seed)
    picture = evidence.picture()
    maps: list[Tensor] = []
    for place, segments in each_alike(enumerate(SCALES), len(SCALES)):
        first, after = (number * each // len(SCALES) for each in (place, place + 1))
        if after > first:
            labels = slic(picture, segments)
            maps.append(_scale(evidence, labels, after - first, generator))
    return fused(maps)


def _scale(
    evidence: MaskedPictures, labels: Tensor, number: int, generator: torch.Generator
) -> Tensor:
    """The map [N, h, w] of one scale, whose segments have labels [a, b]."""
    segments = int(labels.max()) + 1
    labels = labels.to(evidence.device)
    total, density = torch.zeros(()), torch.zeros(())
    for drawn in draws(number, segments + 2, generator, evidence):
        masks = segment_masks(
            labels,
            (drawn[:, :-2] < SHOWN).float(),
            _cut(evidence.height, labels.shape[0], drawn[:, -2]),
            _cut(evidence.width, labels.shape[1], drawn[:, -1]),
        )
        means = cell_means(masks, evidence.cell)
        found = exact_sum(evidence.similarities(masks), means)
        total, density = total.to(found) + found, density.to(found) + means.double().sum(0)
    return torch.where(density > 0, total / density, 0.0)


def _cut(side: int, cells: int, shares: Tensor) -> Tensor:
    """Where the pixels of one side lie on so many cells, made ENLARGED times as large as the side
    and cut at random shares [B] of what is too much: [B, side]."""
    large = side + math.floor((ENLARGED - 1) * side)
    shift = (shares * (large - side + 1)).floor().clamp(max=large - side)
    places = torch.arange(side, device=shares.device) + 0.5 + shift[:, None]
    return places * (cells / large) - 0.5


def segment_masks(labels: Tensor, shown: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Masks [B, h, w]: segments with labels [a, b], shown [B, segments], at rows [B, h] and columns
    [B, w] of the labels, by bilinear interpolation. Only the cells in between are looked at."""
    top, tall = _span(rows, labels.shape[0])
    left, wide = _span(columns, labels.shape[1])
    y = top[:, None] + torch.arange(tall, device=labels.device)
    x = left[:, None] + torch.arange(wide, device=labels.device)
    own = labels[y[:, :, None], x[:, None, :]]
    grids = shown.gather(1, own.flatten(1)).view(own.shape)
    return smooth(grids, rows - top[:, None], columns - left[:, None])


def _span(places: Tensor, cells: int) -> tuple[Tensor, int]:
    """The first cell [B] that ascending places [B, n] depend on, and how many from there on."""
    length = min(cells, int((places[:, -1] - places[:, 0]).max()) + 3)
    return places[:, 0].floor().long().clamp(0, cells - length), length


def fused(maps: Sequence[Tensor]) -> Tensor:
    """The maps [N, h, w] of all scales, coarsest first, as one: float32 [N, h, w]."""
    heat = torch.zeros_like(maps[0])
    for scale in reversed(maps):
        least, most = scale.amin((-2, -1), keepdim=True), scale.amax((-2, -1), keepdim=True)
        own = (scale - least) / torch.where(most > least, most - least, 1.0)
        nothing_yet = heat.amax((-2, -1), keepdim=True) == 0
        cascaded = torch.where(nothing_yet, own, (heat + own) * own)
        heat = torch.where(most > least, cascaded, heat)
    return heat.float()

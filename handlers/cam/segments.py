"""D-CLOSE: masks made of a picture's segments, at several scales."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.cam.masks import MaskedPictures, add_exactly, cell_means, draws, few_at_a_time, smooth
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
    return fused(_finest_first(evidence))


@dataclass(frozen=True)
class _Scale:
    """labels: of its segments, [a, b]. number: of its masks. state: the generator's before them."""

    labels: Tensor
    number: int
    state: Tensor

    @property
    def segments(self) -> int:
        return int(self.labels.max()) + 1


def _finest_first(evidence: MaskedPictures) -> Iterator[Tensor]:
    """The map of each scale, finest first, as they are fused, so that no two wait for each other;
    what their masks are drawn from is that of the coarsest first."""
    number = evidence.masks or DCLOSE_MASKS
    generator = torch.Generator().manual_seed(evidence.seed)
    picture = evidence.picture()
    scales: list[_Scale] = []
    for place, segments in enumerate(SCALES):
        first, after = (number * each // len(SCALES) for each in (place, place + 1))
        if after > first:
            scale = _Scale(slic(picture, segments), after - first, generator.get_state())
            scales.append(scale)
            for _ in range(scale.number):
                torch.rand(scale.segments + 2, generator=generator)
    for scale in each_alike(reversed(scales), len(scales)):
        generator.set_state(scale.state)
        yield _map_of(evidence, scale, generator)


def _map_of(evidence: MaskedPictures, scale: _Scale, generator: torch.Generator) -> Tensor:
    """The map [N, h, w] of one scale."""
    labels = scale.labels.to(evidence.device)
    total: Tensor | None = None
    density = torch.zeros((), dtype=torch.float64, device=evidence.device)
    for drawn in draws(scale.number, scale.segments + 2, generator, evidence):
        masks = segment_masks(
            labels,
            (drawn[:, :-2] < SHOWN).float(),
            _cut(evidence.height, labels.shape[0], drawn[:, -2]),
            _cut(evidence.width, labels.shape[1], drawn[:, -1]),
        )
        means = cell_means(masks, evidence.cell)
        total = add_exactly(total, evidence.similarities(masks), means)
        density = density + means.double().sum(0)
    assert total is not None  # a scale has at least one mask
    return total.div_(density).masked_fill_(density <= 0, 0.0)


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


def fused(maps: Iterable[Tensor]) -> Tensor:
    """The maps [N, h, w] of all scales, at least one and finest first, as one: float32."""
    heat: Tensor | None = None
    for scale in maps:
        heat = torch.zeros_like(scale) if heat is None else heat
        for rows in few_at_a_time(scale):
            heat[rows] = _cascaded(heat[rows], scale[rows])
        del scale  # or it would live while the next is made
    assert heat is not None
    return heat.float()


def _cascaded(heat: Tensor, scale: Tensor) -> Tensor:
    """What was fused so far with the map of the next coarser scale."""
    least, most = scale.amin((-2, -1), keepdim=True), scale.amax((-2, -1), keepdim=True)
    own = (scale - least) / torch.where(most > least, most - least, 1.0)
    nothing_yet = heat.amax((-2, -1), keepdim=True) == 0
    cascaded = torch.where(nothing_yet, own, (heat + own) * own)
    return torch.where(most > least, cascaded, heat)

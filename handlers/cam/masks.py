"""D-RISE, and what methods that look at masked pictures share: smooth masks, and sums of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from handlers.cam.gradient import WINDOW_BUDGET, weighted_sum
from handlers.cam.registry import METHODS, Evidence, looks_at
from handlers.time_limit import on_time

# D-RISE's masks (Petsiuk et al. 2021, section 4.1): cells along a side, the share of them that is
# shown, and how many masks.
CELLS = 16
SHOWN = 0.5
DRISE_MASKS = 5000


class MaskedPictures(Protocol):
    """What N explanations make of a picture of which parts are hidden.

    masks: how many are asked for, None for what the method's paper has. seed: what they are drawn
    from. height, width: the picture on the network input, without padding, in pixels: the size of
    a mask. cell: maps have a cell for cell x cell of these pixels, and for what is left of them at
    the right and at the bottom. batch: as many masks as it is worth to make next; it follows what
    gets known of memory.
    """

    @property
    def masks(self) -> int | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def cell(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def device(self) -> torch.device: ...

    def picture(self) -> Tensor:
        """RGB [3, height, width], 0 ... 1, on the CPU."""

    def similarities(self, masks: Tensor) -> Tensor:
        """[N, B]: how much of each of N explanations is found again under masks [B, height, width],
        1 where the picture is shown and 0 where it is hidden; 0 ... 1 each."""


@METHODS.register("drise")
@looks_at(Evidence.MASKS)
def drise(evidence: MaskedPictures) -> Tensor:
    """D-RISE (Petsiuk et al. 2021): sum_i s_i M_i, s_i how much of the box is found under mask M_i.

    M_i is RISE's mask (Petsiuk et al. 2018): 16 x 16 cells, each shown with probability 0.5, made
    17/16 of the picture's size by bilinear interpolation and cut to it at a random place. The
    paper rounds a cell's pixels down, which may leave the mask smaller than the picture; as its
    authors' code does, they are rounded up here. 5000 masks, as in the paper.

    RISE divides the sum by the number of masks and the share that is shown, D-RISE does not say;
    both only scale the map, and it is divided here, so that it does not grow with the number of
    masks. The paper's sum is nowhere zero, since every place is shown half of the time, and its
    figures begin at the map's least value; that is subtracted here.

    Maps [N, h, w] are means over cells (see MaskedPictures): a mask changes little within one.
    """
    number = evidence.masks or DRISE_MASKS
    generator = torch.Generator().manual_seed(evidence.seed)
    total: Tensor | None = None
    for drawn in draws(number, CELLS * CELLS + 2, generator, evidence):
        grids = (drawn[:, :-2] < SHOWN).float().unflatten(1, (CELLS, CELLS))
        rows = _shifted(evidence.height, drawn[:, -2])
        columns = _shifted(evidence.width, drawn[:, -1])
        masks = smooth(grids, rows, columns)
        means = cell_means(masks, evidence.cell)
        total = add_exactly(total, evidence.similarities(masks), means)
    assert total is not None  # there is at least one mask
    total.div_(SHOWN * number)
    return total.sub_(total.amin((-2, -1), keepdim=True)).float()


def draws(
    number: int, each: int, generator: torch.Generator, evidence: MaskedPictures
) -> Iterator[Tensor]:
    """Uniform random numbers 0 ... 1 for `number` masks: [B, each], a few masks at a time. Drawn
    mask by mask on the CPU, so that neither batch nor device changes them. Raises OutOfTimeError
    where a time limit does not allow for all of them."""
    for own in on_time(_runs(number, evidence), number):
        yield torch.rand(len(own), each, generator=generator).to(evidence.device)


def _runs(number: int, evidence: MaskedPictures) -> Iterator[range]:
    run = range(0)
    while run.stop < number:
        run = range(run.stop, min(run.stop + evidence.batch, number))
        yield run


def _shifted(side: int, shares: Tensor) -> Tensor:
    """Where the pixels of one side lie on the cells of RISE's masks, for random shares [B] of the
    largest shift: [B, side], the middle of a cell is a whole number."""
    pixels = math.ceil(side / CELLS)
    shift = (shares * (pixels + 1)).floor().clamp(max=pixels)
    places = torch.arange(side, device=shares.device) + 0.5 + shift[:, None]
    return places * (CELLS / ((CELLS + 1) * pixels)) - 0.5


def smooth(grids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Grids [B, a, b] at rows [B, h] and columns [B, w] of them, by bilinear interpolation:
    [B, h, w]; beyond the middles of the outer cells these go on."""
    return linear(rows, grids.shape[1]) @ grids @ linear(columns, grids.shape[2]).transpose(1, 2)


def linear(places: Tensor, cells: int) -> Tensor:
    """What each of so many cells gives to places [B, n] between their middles: [B, n, cells]."""
    places = places.clamp(0, cells - 1)[..., None]
    return (1 - (places - torch.arange(cells, device=places.device)).abs()).clamp(min=0)


def cell_means(masks: Tensor, cell: int) -> Tensor:
    """Masks [B, h, w] as their means over cells of cell x cell pixels; over less at the right and
    at the bottom, where a cell reaches beyond the mask."""
    return F.avg_pool2d(masks[:, None], cell, ceil_mode=True)[:, 0]


def add_exactly(total: Tensor | None, weights: Tensor, maps: Tensor) -> Tensor:
    """Adds sum_b weights [N, B] maps [B, h, w] to float64 [N, h, w], None for zeros: for sums of
    many. In place and a few of the N at a time: of thousands of boxes there may be memory for one
    such sum, and not for a second."""
    weights, maps = weights.double(), maps.double()
    if total is None:
        total = maps.new_zeros(len(weights), *maps.shape[1:])
    for rows in few_at_a_time(total):
        total[rows].add_(weighted_sum(weights[rows], maps))
    return total


def few_at_a_time(maps: Tensor) -> Iterator[slice]:
    """The rows of maps [N, h, w], as many at a time as WINDOW_BUDGET has room for, or one."""
    count = max(1, WINDOW_BUDGET // max(1, maps[0].numel())) if len(maps) else 1
    return (slice(start, start + count) for start in range(0, len(maps), count))

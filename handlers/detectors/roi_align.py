"""RoIAlign as two small matrices: pooled = rows @ map @ columns^T, exact for axis-aligned boxes;
and as a weighted sum of cells, where only its result is asked for.

He et al. 2017 (Mask R-CNN) average bilinear samples on a regular grid in every bin. A bilinear
weight is a product of one factor in y and one in x, so is their average over the grid, and so is
torchvision's rule that a sample further than one cell off the map counts as zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign


def pooling_matrices(
    boxes: Tensor,
    scale: float,
    map_size: tuple[int, int],
    output_size: tuple[int, int],
    sampling_ratio: int,
) -> tuple[Tensor, Tensor]:
    """The matrices (rows [N, p, h], columns [N, q, w]) of `torchvision.ops.roi_align`.

    boxes: [N, 4], x1, y1, x2, y2 in pixels of the network input; `scale` takes them to cells of the
    map (h, w). sampling_ratio: samples a bin and axis; 0 or less is adaptive, as in torchvision.
    roi_align with aligned=False, which MultiScaleRoIAlign uses, equals
    einsum("npy,cyx,nqx->ncpq", rows, map, columns).
    """
    height, width = map_size
    vertical, horizontal = _extents(boxes * scale)
    rows = _axis_matrix(*vertical, height, output_size[0], sampling_ratio)
    columns = _axis_matrix(*horizontal, width, output_size[1], sampling_ratio)
    return rows, columns


def _extents(boxes: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Where boxes begin and how long they are, at least a cell, down and across: [N] each."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (y1, (y2 - y1).clamp(min=1.0)), (x1, (x2 - x1).clamp(min=1.0))


def _axis_matrix(start: Tensor, length: Tensor, cells: int, bins: int, ratio: int) -> Tensor:
    """[N, bins, cells]: what each cell gives to each bin, along one axis."""
    places, shares = _samples(start, length, cells, bins, ratio)
    return start.new_zeros(len(start), bins, cells).scatter_add_(2, places, shares)


def _samples(
    start: Tensor, length: Tensor, cells: int, bins: int, ratio: int
) -> tuple[Tensor, Tensor]:
    """Along one axis the cells that each bin reads, int64, and what it takes of each: [N, bins, S]
    each, S twice the samples of a bin."""
    bin_size = length / bins
    count = torch.full_like(bin_size, ratio) if ratio > 0 else bin_size.ceil()
    most = int(count.max()) if len(count) else 0
    sample = torch.arange(most, device=start.device)
    used = sample < count[:, None]  # [N, S / 2]
    offset = (sample + 0.5) * (bin_size / count)[:, None]
    first = torch.arange(bins, device=start.device) * bin_size[:, None] + start[:, None]
    place = first[:, :, None] + offset[:, None, :]  # [N, bins, S / 2]
    inside = (place >= -1.0) & (place <= cells) & used[:, None, :]
    place = place.clamp(min=0.0)
    low = place.floor().long().clamp(max=cells - 1)
    high = (low + 1).clamp(max=cells - 1)
    fraction = torch.where(low >= cells - 1, torch.zeros_like(place), place - low)
    share = inside / count[:, None, None]
    return torch.cat([low, high], 2), torch.cat([(1 - fraction) * share, fraction * share], 2)


def pooled(
    pool: MultiScaleRoIAlign,
    maps: Mapping[str, Tensor],
    boxes: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
) -> Tensor:
    """What torchvision's `pool` gives of the maps [B, C, h, w] for each picture's boxes [N, 4] in
    pixels of the network input, [sum of N, C, p, q], to rounding.

    On a processor, and where no gradient is asked for, it is several times as fast.
    """
    levels = [maps[name] for name in maps if name in pool.featmap_names]
    if not _weighed(pool, levels):
        theirs: Tensor = MultiScaleRoIAlign.forward(pool, {**maps}, [*boxes], [*sizes])
        return theirs
    every = torch.cat([*boxes])
    picture = torch.repeat_interleave(torch.tensor([len(each) for each in boxes]))
    level = torch.zeros_like(picture)
    if len(levels) > 1:
        assert pool.map_levels is not None  # set together with the scales
        level = pool.map_levels([*boxes])
    found = every.new_zeros(len(every), *pool.output_size, levels[0].shape[1])
    for number, (own, scale) in enumerate(zip(levels, pool.scales or (), strict=True)):
        (places,) = torch.where(level == number)
        if len(places):
            found[places] = weighed_cells(
                own, picture[places], every[places], scale, pool.output_size, pool.sampling_ratio
            )
    return found.permute(0, 3, 1, 2)


def _weighed(pool: MultiScaleRoIAlign, levels: Sequence[Tensor]) -> bool:
    """Whether `weighed_cells` can do it."""
    return (
        pool.scales is not None
        and pool.sampling_ratio > 0
        and all(each.device.type == "cpu" and each.dtype == torch.float32 for each in levels)
        and not torch.is_grad_enabled()
    )


def weighed_cells(
    activations: Tensor,
    picture: Tensor,
    boxes: Tensor,
    scale: float,
    output_size: Sequence[int],
    sampling_ratio: int,
) -> Tensor:
    """`torchvision.ops.roi_align` with aligned=False, but [N, p, q, C]: each bin is a weighted sum
    of cells, whose channels are laid side by side, so that a sum runs at the memory's pace.

    activations: [B, C, h, w]; picture: int64 [N], each box's place in the batch; the rest as for
    `pooling_matrices`, sampling_ratio and N at least 1.
    """
    _, channels, height, width = activations.shape
    vertical, horizontal = _extents(boxes * scale)
    rows, row_shares = _samples(*vertical, height, output_size[0], sampling_ratio)
    columns, column_shares = _samples(*horizontal, width, output_size[1], sampling_ratio)
    rows = rows + picture[:, None, None] * height
    # [N, p, q, row samples, column samples]
    cells = rows[:, :, None, :, None] * width + columns[:, None, :, None]
    shares = row_shares[:, :, None, :, None] * column_shares[:, None, :, None]
    table = activations.permute(0, 2, 3, 1).reshape(-1, channels)
    sums = F.embedding_bag(
        cells.flatten(3).flatten(0, 2),
        table,
        per_sample_weights=shares.flatten(3).flatten(0, 2),
        mode="sum",
    )
    return sums.reshape(len(boxes), *output_size, channels)

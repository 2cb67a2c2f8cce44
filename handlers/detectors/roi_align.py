"""RoIAlign as two small matrices: pooled = rows @ map @ columns^T, exact for axis-aligned boxes.

He et al. 2017 (Mask R-CNN) average bilinear samples on a regular grid in every bin. A bilinear
weight is a product of one factor in y and one in x, so is their average over the grid, and so is
torchvision's rule that a sample further than one cell off the map counts as zero.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    x1, y1, x2, y2 = (boxes * scale).unbind(-1)
    rows = _axis_matrix(y1, (y2 - y1).clamp(min=1.0), height, output_size[0], sampling_ratio)
    columns = _axis_matrix(x1, (x2 - x1).clamp(min=1.0), width, output_size[1], sampling_ratio)
    return rows, columns


def _axis_matrix(start: Tensor, length: Tensor, cells: int, bins: int, ratio: int) -> Tensor:
    """[N, bins, cells]: what each cell gives to each bin, along one axis."""
    bin_size = length / bins
    count = torch.full_like(bin_size, ratio) if ratio > 0 else bin_size.ceil()
    most = int(count.max()) if len(count) else 0
    sample = torch.arange(most, device=start.device)
    used = sample < count[:, None]  # [N, S]
    offset = (sample + 0.5) * (bin_size / count)[:, None]  # [N, S]
    first = (
        torch.arange(bins, device=start.device) * bin_size[:, None] + start[:, None]
    )  # [N, bins]
    place = first[:, :, None] + offset[:, None, :]  # [N, bins, S]
    inside = (place >= -1.0) & (place <= cells) & used[:, None, :]
    place = place.clamp(min=0.0)
    low = place.floor().long().clamp(max=cells - 1)
    high = (low + 1).clamp(max=cells - 1)
    fraction = torch.where(low >= cells - 1, torch.zeros_like(place), place - low)
    share = inside / count[:, None, None]
    matrix = start.new_zeros(len(start), bins, cells)
    matrix.scatter_add_(2, low, (1 - fraction) * share)
    matrix.scatter_add_(2, high, fraction * share)
    return matrix

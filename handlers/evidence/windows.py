"""Windows of a feature map around detections' own cells."""

from __future__ import annotations

import torch
from torch import Tensor


def cut_windows(maps: Tensor, reach: int, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Of a map [1, C, h, w] the cells up to `reach` around those of int64 rows and columns [n]:
    [n, C, s, s], zero off the map; and [n, 1, s, s], one on the map and zero off it."""
    channels, height, width = maps.shape[1:]
    side = 2 * reach + 1
    offset = torch.arange(-reach, reach + 1, device=maps.device)
    y, x = row[:, None] + offset, column[:, None] + offset
    inside_y, inside_x = (y >= 0) & (y < height), (x >= 0) & (x < width)
    inside = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
    cells = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
    # Much faster than an index of two tensors.
    windows = maps[0].flatten(1).index_select(1, cells.flatten())
    windows = windows.view(channels, len(row), side, side).transpose(0, 1)
    return windows.contiguous().masked_fill_(~inside, 0), inside.to(maps.dtype)

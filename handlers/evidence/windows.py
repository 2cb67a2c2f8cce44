"""Windows of a feature map around detections' own cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cut_windows(maps: Tensor, reach: int, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Of a map [1, C, h, w] the cells up to `reach` around those of int64 rows and columns [n]:
    [n, C, s, s], zero off the map; and [n, 1, s, s], one on the map and zero off it."""
    height, width = maps.shape[-2:]
    side = 2 * reach + 1
    padded = F.pad(maps[0], (reach, reach, reach, reach))
    inside = F.pad(maps.new_ones(1, height, width), (reach, reach, reach, reach))
    offset = torch.arange(side, device=maps.device)
    y = (row[:, None] + offset)[:, :, None].expand(-1, -1, side)
    x = (column[:, None] + offset)[:, None, :].expand(-1, side, -1)
    windows = padded[:, y, x].transpose(0, 1).contiguous()
    return windows, inside[:, y, x].transpose(0, 1)

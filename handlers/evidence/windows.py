"""Windows of a feature map around detections' own cells."""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.cam.gradient import square_cells


def window_cells(
    row: Tensor, column: Tensor, reach: int, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """The cells up to `reach` around those of int64 rows and columns [n]: flat places [n, s, s] on
    a map of height x width, and whether they lie on it; off it the place of a cell at its border.
    """
    offset = torch.arange(-reach, reach + 1, device=row.device)
    y, x = row[:, None] + offset, column[:, None] + offset
    inside_y, inside_x = (y >= 0) & (y < height), (x >= 0) & (x < width)
    cells = square_cells(row - reach, column - reach, 2 * reach + 1, height, width)
    return cells, inside_y[:, :, None] & inside_x[:, None, :]


def cut_windows(maps: Tensor, reach: int, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Of a map [1, C, h, w] the cells up to `reach` around those of int64 rows and columns [n]:
    [n, C, s, s], zero off the map, in the order of channels_last; and [n, 1, s, s], one on the map
    and zero off it."""
    cells, inside = window_cells(row, column, reach, *maps.shape[-2:])
    on_map = inside[..., None].to(maps.dtype)
    # A cell's channels side by side: whole rows are copied, several times faster than one by one.
    rows = maps[0].flatten(1).T.contiguous()
    windows = rows.index_select(0, cells.flatten()).view(*cells.shape, -1) * on_map
    return windows.permute(0, 3, 1, 2), on_map.permute(0, 3, 1, 2)


def spread_windows(windows: Tensor, row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """Windows [n, C, s, s] around int64 rows and columns [n], each on a map of its own of height x
    width that is zero elsewhere: [n, C, h, w], in the order of channels_last."""
    number, channels, side, _ = windows.shape
    cells, inside = window_cells(row, column, side // 2, height, width)
    whole = windows.new_zeros(number, height * width, channels)
    place, y, x = torch.where(inside)
    whole[place, cells[place, y, x]] = windows[place, :, y, x]
    return whole.view(number, height, width, channels).permute(0, 3, 1, 2)

"""Superpixels: segments of a picture that are alike in place and colour (SLIC)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

COMPACTNESS = 10.0
ITERATIONS = 10
# Pictures are segmented at about this many pixels, or at their own if they have fewer.
WORK_PIXELS = 100_000
# A segment has at least about so many pixels of the picture.
LEAST_PIXELS = 16
# CIE XYZ of linear sRGB, divided by the white point D65.
XYZ = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)


def slic(picture: Tensor, segments: int) -> Tensor:
    """SLIC (Achanta et al. 2012): about so many segments of an RGB picture [3, H, W], 0 ... 1.

    Gives int64 labels [h, w] of a picture resized to h x w pixels: 0 ... rows * columns - 1, for
    the rows x columns of a grid of seeds. K-means in CIELAB and place, D^2 = d_lab^2 +
    (m d_xy / S)^2 with m = 10 and S the distance between seeds, 10 rounds. Deterministic.

    Simpler than the paper: a seed starts at the mean of its square, not at the pixel of least
    gradient near its middle; a pixel chooses among the nine seeds whose squares are around its own,
    where the paper has those within 2 S of it; and pieces that are cut off from their segment stay
    part of it, where the paper gives them to a neighbour.
    """
    height, width = picture.shape[-2:]
    segments = max(1, min(segments, height * width // LEAST_PIXELS))
    exact = math.sqrt(height * width / segments)
    rows, columns = max(1, round(height / exact)), max(1, round(width / exact))
    seeds = rows * columns
    side = max(2, round(math.sqrt(min(WORK_PIXELS, height * width) / seeds)))
    cells = _cells(picture, rows, columns, side)
    return _clustered(cells, rows, columns, side)


def _cells(picture: Tensor, rows: int, columns: int, side: int) -> Tensor:
    """Every pixel's colour and place by the square of its seed: [rows, columns, side^2, 5]."""
    size = (rows * side, columns * side)
    resized = F.interpolate(picture[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    y = torch.arange(size[0]).float()[:, None].expand(size)
    x = torch.arange(size[1]).float()[None, :].expand(size)
    places = torch.stack([y, x]) * (COMPACTNESS / side)
    pixels = torch.cat([lab(resized), places])
    blocks = pixels.view(5, rows, side, columns, side).permute(1, 3, 2, 4, 0)
    return blocks.reshape(rows, columns, side * side, 5)


def _clustered(cells: Tensor, rows: int, columns: int, side: int) -> Tensor:
    number = rows * columns
    start = cells.mean(2)
    # Around the seeds' starts, so that float32 tells large coordinates apart.
    pixels = cells - start[:, :, None]
    label = _around(torch.arange(number).view(rows, columns, 1), -1)[..., 0]
    outside = torch.where(label < 0, torch.inf, 0.0)
    centres = start
    chosen = label[:, :, 4:5].expand(-1, -1, side * side)
    for _ in range(ITERATIONS):
        near = _around(centres, 0) - start[:, :, None]
        squares = (near**2).sum(-1) + outside
        # But for the pixel's own square, which is the same for all nine.
        distance = squares[:, :, None] - 2 * pixels @ near.transpose(2, 3)
        chosen = label.gather(2, distance.argmin(-1))
        flat = chosen.flatten()
        sums = cells.new_zeros(number, 5).index_add_(0, flat, cells.reshape(-1, 5))
        counts = torch.bincount(flat, minlength=number)[:, None]
        means = torch.where(counts > 0, sums / counts.clamp(min=1), centres.reshape(-1, 5))
        centres = means.view_as(centres)
    return chosen.view(rows, columns, side, side).transpose(1, 2).reshape(rows * side, -1)


def _around(values: Tensor, fill: float) -> Tensor:
    """For each place of values [rows, columns, c] those of the nine around it (itself the fifth):
    [rows, columns, 9, c], `fill` beyond the border."""
    rows, columns = values.shape[:2]
    padded = F.pad(values, (0, 0, 1, 1, 1, 1), value=fill)
    shifts = [(down, across) for down in range(3) for across in range(3)]
    return torch.stack(
        [padded[down : down + rows, across : across + columns] for down, across in shifts], 2
    )


def lab(picture: Tensor) -> Tensor:
    """CIELAB [3, H, W] (L 0 ... 100) of an sRGB picture [3, H, W], 0 ... 1, under D65."""
    light = torch.where(picture > 0.04045, ((picture + 0.055) / 1.055) ** 2.4, picture / 12.92)
    xyz = torch.einsum("ij,jhw->ihw", light.new_tensor(XYZ), light)
    root = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])

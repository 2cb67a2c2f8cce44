"""MaskedPictures of which every number is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conftest import random_picture


@dataclass
class Synthetic:
    """Similarities are any function of masks [B, h, w]; shown: all masks so far, if `keep`."""

    function: Callable[[Tensor], Tensor]
    masks: int | None = 40
    seed: int = 0
    height: int = 50
    width: int = 70
    cell: int = 4
    batch: int = 16
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    keep: bool = True
    shown: list[Tensor] = field(default_factory=list)

    def picture(self) -> Tensor:
        return random_picture(self.height, self.width) / 255

    def similarities(self, masks: Tensor) -> Tensor:
        self.shown += list(masks) if self.keep else []
        return self.function(masks)


# Two explanations, each of which is found as far as one place (row, column) is shown.
PLACES = ((12, 21), (38, 55))


def of_places(masks: Tensor) -> Tensor:
    return torch.stack([masks[:, row, column] for row, column in PLACES])


def means_by_hand(mask: Tensor, cell: int) -> Tensor:
    """A mask's means over cells, the last of which may be smaller."""
    rows, columns = (-(-side // cell) for side in mask.shape)
    means = torch.empty(rows, columns)
    for row in range(rows):
        for column in range(columns):
            y, x = row * cell, column * cell
            means[row, column] = mask[y : y + cell, x : x + cell].mean()
    return means


def rise_masks(seed: int, number: int, height: int, width: int) -> list[Tensor]:
    """The masks of RISE one by one: a grid made (16 + 1) / 16 of the size, and cut."""
    generator = torch.Generator().manual_seed(seed)
    tall, wide = math.ceil(height / 16), math.ceil(width / 16)
    masks = []
    for _ in range(number):
        drawn = torch.rand(16 * 16 + 2, generator=generator)
        grid = (drawn[:256] < 0.5).float().view(1, 1, 16, 16)
        large = F.interpolate(grid, (17 * tall, 17 * wide), mode="bilinear")[0, 0]
        y, x = int(drawn[256] * (tall + 1)), int(drawn[257] * (wide + 1))
        masks.append(large[y : y + height, x : x + width])
        assert masks[-1].shape == (height, width)
    return masks

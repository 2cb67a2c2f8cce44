"""The gradient of many detections' scores with respect to one feature map, without building it.

A detection's score depends on the map A [C, h, w] only through what the head pooled of it,
r = P_y A P_x^T, with small matrices P_y [p, h] and P_x [q, w]. So dy/dA = P_y^T G P_x, where
G = dy/dr: non-zero in the RoI's footprint alone, and its mean needs no map at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Floats of gradient that one window batch may hold at a time (64 MiB in float32).
WINDOW_BUDGET = 16_777_216


@dataclass(frozen=True)
class Window:
    """The footprints of a few detections, padded to one size.

    index: [n] which detections. activation, gradient: [n, C, a, b]. cells: [n, a * b], the flat
    place of each cell on the map; a padding cell repeats a real one and its gradient is zero.
    """

    index: Tensor
    activation: Tensor
    gradient: Tensor
    cells: Tensor

    def add_to(self, maps: Tensor, values: Tensor) -> None:
        """Adds values [n, a * b] to flat maps [N, h * w], in place; the values of padding cells,
        which repeat a real cell, must be zero."""
        places = self.index[:, None] * maps.shape[1] + self.cells
        maps.view(-1).scatter_add_(0, places.flatten(), values.flatten())


@dataclass(frozen=True)
class MapGradient:
    """d score_n / d activation for N detections that pooled from one map.

    activation: [C, h, w]. pooled: [N, C, p, q]; gradient: [N, C, p, q], d score_n / d pooled_n.
    rows: [N, p, h]; columns: [N, q, w]: pooled[n, c] = rows[n] @ activation[c] @ columns[n]^T.
    """

    activation: Tensor
    pooled: Tensor
    gradient: Tensor
    rows: Tensor
    columns: Tensor

    def mean(self) -> Tensor:
        """The gradient's mean over the map, [N, C]."""
        _, height, width = self.activation.shape
        gathered = torch.einsum(
            "ncpq,np,nq->nc", self.gradient, self.rows.sum(-1), self.columns.sum(-1)
        )
        return gathered / (height * width)

    def inner(self) -> Tensor:
        """sum over space of gradient times activation, [N, C] (pooling is linear: it is G . r)."""
        return (self.gradient * self.pooled).sum((-2, -1))

    def weighted(self, weights: Tensor) -> Tensor:
        """sum over channels of weights [N, C] times the activation: maps [N, h, w]."""
        return torch.einsum("nc,chw->nhw", weights, self.activation)

    def channel_sums(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """sum over space of function(activation, gradient) -> [n, C, a, b]: [N, C].

        `function` must be zero where the gradient is zero.
        """
        sums = self.gradient.new_zeros(self.gradient.shape[:2])
        for window in self.windows():
            sums[window.index] = function(window.activation, window.gradient).sum((-2, -1))
        return sums

    def elementwise(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Maps [N, h, w] from function(activation, gradient) -> [n, a, b].

        `function` must be zero where the gradient is zero.
        """
        _, height, width = self.activation.shape
        maps = self.gradient.new_zeros(len(self.gradient), height * width)
        for window in self.windows():
            window.add_to(maps, function(window.activation, window.gradient).flatten(1))
        return maps.view(-1, height, width)

    def windows(self) -> Iterator[Window]:
        """The footprints in batches of like size, each within WINDOW_BUDGET."""
        top, tall = _span(self.rows)
        left, wide = _span(self.columns)
        # Like size: the same power of two, so that padding at most quadruples the work.
        kinds = torch.stack([tall, wide], 1).double().log2().ceil().long()
        for kind in kinds.unique(dim=0):
            members = torch.where((kinds == kind).all(1))[0]
            largest = int(tall[members].max() * wide[members].max())
            count = max(1, WINDOW_BUDGET // (self.activation.shape[0] * largest))
            for index in members.split(count):
                yield self._window(index, top[index], left[index], tall[index], wide[index])

    def _window(
        self, index: Tensor, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor
    ) -> Window:
        channels, height, width = self.activation.shape
        y, row_share = _gather(self.rows[index], top, int(tall.max()), height)
        x, column_share = _gather(self.columns[index], left, int(wide.max()), width)
        cells = (y[:, :, None] * width + x[:, None, :]).flatten(1)
        gradient = row_share.transpose(1, 2)[:, None] @ self.gradient[index]
        gradient = gradient @ column_share[:, None]
        flat = self.activation.reshape(channels, -1)
        activation = flat[:, cells].transpose(0, 1)
        return Window(index, activation.reshape(gradient.shape), gradient, cells)


def _span(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """First column and number of columns that hold all non-zero entries, for each of [N, p, h]."""
    used = (matrix != 0).any(1)
    number = used.shape[1]
    place = torch.arange(number, device=matrix.device)
    first = torch.where(used, place, number).amin(1)
    last = torch.where(used, place, -1).amax(1)
    empty = last < 0
    return first.masked_fill(empty, 0), (last - first + 1).masked_fill(empty, 1)


def _gather(matrix: Tensor, first: Tensor, length: int, number: int) -> tuple[Tensor, Tensor]:
    """Columns first ... first + length of each matrix [n, p, h]: their places [n, length] and the
    entries [n, p, length], zero beyond the map."""
    place = first[:, None] + torch.arange(length, device=matrix.device)
    clamped = place.clamp(max=number - 1)
    entries = matrix.gather(2, clamped[:, None].expand(-1, matrix.shape[1], -1))
    return clamped, entries * (place < number)[:, None]

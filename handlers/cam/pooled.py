"""The gradient with respect to a map that the head saw through RoIAlign only.

A detection's score depends on the map A [C, h, w] only through what the head pooled of it,
r = P_y A P_x^T, with small matrices P_y [p, h] and P_x [q, w]. So dy/dA = P_y^T G P_x, where
G = dy/dr: non-zero in the RoI's footprint alone, and its mean needs no map at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.cam.gradient import WINDOW_BUDGET, MapGradient, Window, gathered
from handlers.cam.threads import Result, in_threads


@dataclass(frozen=True)
class PooledGradient(MapGradient):
    """d score_n / d activation for N detections that pooled from one map.

    activation: [C, h, w]. pooled: [N, C, p, q]; gradient: [N, C, p, q], d score_n / d pooled_n.
    rows: [N, p, h]; columns: [N, q, w]: pooled[n, c] = rows[n] @ activation[c] @ columns[n]^T.
    """

    activation: Tensor
    pooled: Tensor
    gradient: Tensor
    rows: Tensor
    columns: Tensor

    def dense(self, places: Tensor) -> Tensor:
        rows, columns = self.rows[places, None], self.columns[places, None]
        return rows.transpose(2, 3) @ self.gradient[places] @ columns

    def mean(self) -> Tensor:
        _, height, width = self.activation.shape
        gathered = torch.einsum(
            "ncpq,np,nq->nc", self.gradient, self.rows.sum(-1), self.columns.sum(-1)
        )
        return gathered / (height * width)

    def inner(self) -> Tensor:
        # Pooling is linear: the gradient times the map is G times what was pooled.
        return (self.gradient * self.pooled).sum((-2, -1))

    def windows(self) -> Iterator[Window]:
        """Footprints of like size together, padded, within WINDOW_BUDGET."""
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

    def each_window(self, work: Callable[[Window], Result]) -> Iterator[Result]:
        """As of any MapGradient. An accelerator is fastest with many footprints at once, and a
        processor with one in each thread, which its cache holds: without padding or a copy
        of the map."""
        if self.gradient.device.type != "cpu":
            return super().each_window(work)
        number, channels, tall, wide = self.gradient.shape
        places = torch.arange(self.activation[0].numel()).view(self.activation.shape[1:])
        # With the channels in the middle both products are of few and large matrices.
        pooled = self.gradient.transpose(1, 2).reshape(number, tall * channels, wide)

        def alone(footprint: list[int]) -> Result:
            index, top, height, left, width = footprint
            y, x = slice(top, top + height), slice(left, left + width)
            stretched = (pooled[index] @ self.columns[index, :, x]).view(tall, channels * width)
            gradient = (self.rows[index, :, y].T @ stretched).view(height, channels, width)
            return work(
                Window(
                    torch.tensor([index]),
                    self.activation[None, :, y, x],
                    gradient.transpose(0, 1)[None],
                    places[y, x].reshape(1, -1),
                )
            )

        spans = torch.stack([torch.arange(number), *_span(self.rows), *_span(self.columns)], 1)
        footprints = spans.tolist()
        floats = [channels * height * width for _, _, height, _, width in footprints]
        return in_threads(alone, footprints, floats)

    def _window(
        self, index: Tensor, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor
    ) -> Window:
        height, width = self.activation.shape[1:]
        y, row_share = _gather(self.rows[index], top, int(tall.max()), height)
        x, column_share = _gather(self.columns[index], left, int(wide.max()), width)
        cells = (y[:, :, None] * width + x[:, None, :]).flatten(1)
        gradient = row_share.transpose(1, 2)[:, None] @ self.gradient[index]
        gradient = gradient @ column_share[:, None]
        activation = gathered(self.activation, cells).view(gradient.shape)
        return Window(index, activation, gradient, cells)


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

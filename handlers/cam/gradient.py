"""The gradient of many detections' scores with respect to one activation, without building it.

A score depends on few cells of a feature map, or on the map only through what was pooled of it.
Each class here holds the gradient in the form in which it came, and hands it out in windows: the
cells where it is not zero. Methods use only what `MapGradient` declares.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.cam.threads import Result, one_thread_if_small

# Floats of gradient that one window batch may hold at a time (64 MiB in float32).
WINDOW_BUDGET = 16_777_216


def gathered(activation: Tensor, cells: Tensor) -> Tensor:
    """Of an activation [C, h, w] the cells at flat int64 places [n, k]: [n, C, k]."""
    flat = activation.flatten(1)
    # Several times faster than flat[:, cells].
    return flat.index_select(1, cells.flatten()).view(len(flat), *cells.shape).transpose(0, 1)


def square_cells(top: Tensor, left: Tensor, side: int, height: int, width: int) -> Tensor:
    """The flat places [n, side, side] on a map of height x width of squares with corners at int64
    rows and columns [n]; off the map that of a cell at its border."""
    offset = torch.arange(side, device=top.device)
    y = (top[:, None] + offset).clamp(0, height - 1)
    x = (left[:, None] + offset).clamp(0, width - 1)
    return y[:, :, None] * width + x[:, None, :]


def over_cells(values: Tensor, reduced: Callable[..., Tensor]) -> Tensor:
    """torch.sum or torch.amax over the cells of [n, C, a, b]: [n, C]."""
    if values.is_contiguous() or values.is_contiguous(memory_format=torch.channels_last):
        return reduced(values, (-2, -1))
    # Rows that lie apart in memory, as of what was pooled: several times faster.
    return reduced(reduced(values, -2), -1)


def weighted_sum(weights: Tensor, maps: Tensor) -> Tensor:
    """sum over k of weights [N, K] times maps [K, h, w]: [N, h, w]."""
    return torch.einsum("nk,khw->nhw", weights, maps)


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


class MapGradient(ABC):
    """d score_n / d activation for N detections; activation: [C, h, w], gradient: N in any form."""

    activation: Tensor
    gradient: Tensor

    def __len__(self) -> int:
        return len(self.gradient)

    @abstractmethod
    def windows(self) -> Iterator[Window]:
        """The cells where the gradient is not zero, in batches within WINDOW_BUDGET. Methods use
        `each_window` or what is built on it, which may be several times faster."""

    def each_window(self, work: Callable[[Window], Result]) -> Iterator[Result]:
        """work(window) of every window, in their order. Several may run at once, in threads of
        their own: what `work` writes has to be of the window's detections alone."""
        for window in self.windows():
            with one_thread_if_small(window.gradient):
                done = work(window)
            yield done

    def for_windows(self, work: Callable[[Window], None]) -> None:
        """The same, where `work` itself writes what comes of a window's detections."""
        for _ in self.each_window(work):
            pass

    @abstractmethod
    def dense(self, places: Tensor) -> Tensor:
        """The whole gradient [n, C, h, w] of the detections at int64 `places` [n]."""

    def mean(self) -> Tensor:
        """The gradient's mean over the map, [N, C]."""
        _, height, width = self.activation.shape
        return self.channel_sums(lambda _, gradient: gradient) / (height * width)

    def inner(self) -> Tensor:
        """sum over space of gradient times activation, [N, C]."""
        return self.channel_sums(lambda activation, gradient: activation * gradient)

    def product(self) -> Tensor:
        """sum over channels of gradient times activation, cell by cell: maps [N, h, w]."""
        return self.elementwise(lambda activation, gradient: (activation * gradient).sum(1))

    def weighted(self, weights: Tensor) -> Tensor:
        """sum over channels of weights [N, C] times the activation: maps [N, h, w]."""
        return weighted_sum(weights, self.activation)

    def channel_sums(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """sum over space of function(activation, gradient) -> [n, C, a, b]: [N, C].

        `function` must be zero where the gradient is zero; it may run in several threads at once.
        """
        sums = self.gradient.new_zeros(len(self), len(self.activation))

        def add(window: Window) -> None:
            values = function(window.activation, window.gradient)
            sums[window.index] = over_cells(values, torch.sum)

        self.for_windows(add)
        return sums

    def elementwise(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Maps [N, h, w] from function(activation, gradient) -> [n, a, b].

        `function` must be zero where the gradient is zero; it may run in several threads at once.
        """
        _, height, width = self.activation.shape
        maps = self.gradient.new_zeros(len(self), height * width)

        def add(window: Window) -> None:
            window.add_to(maps, function(window.activation, window.gradient).flatten(1))

        self.for_windows(add)
        return maps.view(-1, height, width)


@dataclass(frozen=True)
class DenseGradient(MapGradient):
    """activation: [C, h, w]; gradient: [N, C, h, w], every cell of it."""

    activation: Tensor
    gradient: Tensor

    def windows(self) -> Iterator[Window]:
        height, width = self.activation.shape[1:]
        cells = torch.arange(height * width, device=self.gradient.device)
        count = max(1, WINDOW_BUDGET // self.activation.numel())
        for index in torch.arange(len(self), device=cells.device).split(count):
            number = len(index)
            activation = self.activation.expand(number, -1, -1, -1)
            yield Window(index, activation, self.gradient[index], cells.expand(number, -1))

    def dense(self, places: Tensor) -> Tensor:
        return self.gradient[places]


@dataclass(frozen=True)
class LocalGradient(MapGradient):
    """Gradients that are zero but for a square around each detection's own cell.

    activation: [C, h, w]; gradient: [N, C, s, s], zero off the map; top, left: int64 [N], the row
    and column of the square's first cell, which may lie off the map. squares: the activation there,
    [N, C, s, s], where it has been cut out already.
    """

    activation: Tensor
    gradient: Tensor
    top: Tensor
    left: Tensor
    squares: Tensor | None = None

    def windows(self) -> Iterator[Window]:
        channels, height, width = self.activation.shape
        side = self.gradient.shape[-1]
        if side * side > height * width:
            every = torch.arange(len(self), device=self.gradient.device)
            yield from DenseGradient(self.activation, self.dense(every)).windows()
            return
        count = max(1, WINDOW_BUDGET // (channels * side * side))
        for index in torch.arange(len(self), device=self.gradient.device).split(count):
            cells = self._cells(index)
            own = slice(int(index[0]), int(index[-1]) + 1)  # a view, where an index would copy
            if self.squares is None:
                activation = gathered(self.activation, cells).unflatten(2, (side, side))
            else:
                activation = self.squares[own]
            yield Window(index, activation, self.gradient[own], cells)

    def dense(self, places: Tensor) -> Tensor:
        channels, height, width = self.activation.shape
        cells = self._cells(places)
        whole = self.gradient.new_zeros(len(places), channels, height * width)
        whole.scatter_add_(
            2, cells[:, None].expand(-1, channels, -1), self.gradient[places].flatten(2)
        )
        return whole.view(-1, channels, height, width)

    def _cells(self, places: Tensor) -> Tensor:
        """Of detections at int64 `places` [n] the squares' `square_cells`, flat: [n, s * s]."""
        side, size = self.gradient.shape[-1], self.activation.shape[-2:]
        return square_cells(self.top[places], self.left[places], side, *size).flatten(1)

"""The gradient with respect to a map that the head read through convolutions, not yet pulled back
through them.

A convolution y_k(q) = sum over c and d of W[k, c, d] A_c(q + d) gives the map A [C, h, w] the
gradient g_c(p) = sum over k and d of W[k, c, d] g_k(p - d), which costs a convolution for each
detection. But sum_c g_c A_c, all that ODAM and HiResCAM want of it, is the sum over k and d of
g_k(p - d) U_kd(p) with U_kd = sum_c W[k, c, d] A_c, which no detection changes: one convolution's
arithmetic for all of them. And the mean of g_c needs only sums of g_k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handlers.cam.gradient import WINDOW_BUDGET, DenseGradient, MapGradient, Window

# Floats of U that are made at a time on a processor, so that its cache holds them.
STRIP_FLOATS = 1_048_576


@dataclass(frozen=True)
class Behind:
    """gradient: [N, K, h, w], on what a convolution of stride 1 that keeps the map's size gave.
    back: d / d map [N, C, h, w] of it, which leaves it as it is."""

    gradient: Tensor
    convolution: nn.Conv2d
    back: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ConvolvedGradient(MapGradient):
    """activation: [C, h, w]; behind: the convolutions that read it, at least one, none grouped."""

    activation: Tensor
    behind: Sequence[Behind]

    def __len__(self) -> int:
        return len(self.behind[0].gradient)

    @cached_property
    def gradient(self) -> Tensor:  # type: ignore[override]
        """All of it [N, C, h, w], for methods that need it."""
        total = self.behind[0].back(self.behind[0].gradient)
        for each in self.behind[1:]:
            total += each.back(each.gradient)
        return total

    def windows(self) -> Iterator[Window]:
        return DenseGradient(self.activation, self.gradient).windows()

    def dense(self, places: Tensor) -> Tensor:
        return self.gradient[places]

    def mean(self) -> Tensor:
        total = torch.stack([_sums(each) for each in self.behind]).sum(0)
        return total / self.activation[0].numel()

    def product(self) -> Tensor:
        total = _product(self.behind[0], self.activation)
        for each in self.behind[1:]:
            total += _product(each, self.activation)
        return total


def _offsets(convolution: nn.Conv2d) -> list[tuple[int, int, Tensor]]:
    """Of each place in the kernel the offset d in rows and columns, and its weights [C, K]."""
    rows, columns = convolution.weight.shape[-2:]
    tall, wide = convolution.dilation
    # A product with weights that do not lie side by side is several times slower.
    weights = convolution.weight.detach().permute(2, 3, 1, 0).contiguous()
    return [
        (tall * (y - rows // 2), wide * (x - columns // 2), weights[y, x])
        for y in range(rows)
        for x in range(columns)
    ]


def _sums(behind: Behind) -> Tensor:
    """The sum over the map of the gradient on it, [N, C]."""
    height, width = behind.gradient.shape[-2:]
    rows: dict[int, Tensor] = {}
    total = behind.gradient.new_zeros(())
    for y, x, weight in _offsets(behind.convolution):
        if y not in rows:  # of those q for which q + d is on the map
            rows[y] = behind.gradient[:, :, max(0, -y) : max(0, height - max(0, y))].sum(2)
        own = rows[y][:, :, max(0, -x) : max(0, width - max(0, x))].sum(2)
        total = total + own @ weight.T
    return total


def _product(behind: Behind, activation: Tensor) -> Tensor:
    """sum_c g_c A_c: maps [N, h, w]."""
    height, width = activation.shape[1:]
    offsets = _offsets(behind.convolution)
    tall, wide = max(y for y, _, _ in offsets), max(x for _, x, _ in offsets)
    padded = F.pad(activation, (wide, wide, tall, tall)).permute(1, 2, 0).contiguous()
    gradients = behind.gradient.permute(2, 3, 0, 1)  # [h, w, N, K]
    number, outputs = gradients.shape[2:]
    maps = activation.new_zeros(number, height + 2 * tall, width + 2 * wide)
    budget = STRIP_FLOATS if activation.device.type == "cpu" else WINDOW_BUDGET
    step = max(1, budget // (len(offsets) * outputs * width))
    for top in range(0, height, step):
        bottom = min(height, top + step)
        cells = (bottom - top) * width
        shared = activation.new_empty(len(offsets), cells, outputs)  # U at q + d
        for place, (y, x, weight) in enumerate(offsets):
            rows = padded[top + tall + y : bottom + tall + y, wide + x : wide + x + width]
            torch.mm(rows.reshape(cells, -1), weight, out=shared[place])
        own_gradients = gradients[top:bottom].reshape(cells, number, outputs)
        found = (own_gradients @ shared.permute(1, 2, 0)).unflatten(0, (-1, width))
        for place, (y, x, _) in enumerate(offsets):
            own = found[..., place].permute(2, 0, 1)  # [N, rows, w]
            maps[:, top + tall + y : bottom + tall + y, wide + x : wide + x + width] += own
    return maps[:, tall : tall + height, wide : wide + width]

"""A map through a chain of convolutions, GroupNorms and ReLUs, and gradients back through it, with
explicit vector-Jacobian products: all detections' as one batch, and the forward pass only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handlers.cam.convolved import Behind

Back = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Passed:
    """What a tower made of a map: given [1, C, h, w]; first: its first module; backs: for each of
    its modules the gradient on what it was given, of that on what it gave (which all but a
    convolution may overwrite).

    Forward it runs module by module as the detector does, so that a ReLU decides alike; backward in
    the order of channels_last, in which a convolution is faster and sums run along channels.
    """

    first: nn.Conv2d
    given: Tensor
    backs: list[Back]

    def back(self, gradient: Tensor) -> Behind:
        """From d / d given [n, C', h, w], which is overwritten, to behind the first convolution."""
        first, *others = self.backs
        for step in reversed(others):
            gradient = step(gradient)
        return Behind(gradient, self.first, first)


def passed(modules: Sequence[nn.Module], maps: Tensor) -> Passed:
    """Maps [1, C, h, w] through modules, of which the first is a convolution: nn.Conv2d as wide as
    it was, nn.GroupNorm, nn.ReLU."""
    first = modules[0]
    assert isinstance(first, nn.Conv2d)  # towers_of has seen it
    backs: list[Back] = []
    for module in modules:
        maps, back = _steps(module, maps)
        backs.append(back)
    return Passed(first, maps, backs)


def _steps(module: nn.Module, maps: Tensor) -> tuple[Tensor, Back]:
    if isinstance(module, nn.ReLU):
        positive = (maps > 0).contiguous(memory_format=torch.channels_last)
        return F.relu(maps), lambda gradient: gradient.mul_(positive)
    if isinstance(module, nn.GroupNorm):
        return _group_norm(module, maps)
    assert isinstance(module, nn.Conv2d)  # towers_of has seen it
    return module(maps), _transposed(module)


def _transposed(convolution: nn.Conv2d) -> Back:
    """As a convolution with the mirrored kernel, which runs faster than a transposed one."""
    groups, padding = convolution.groups, convolution.padding
    assert not isinstance(padding, str)  # "same" by name is not what `reach` lets pass
    kernel = convolution.weight.flip(2, 3).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    kernel = kernel.contiguous(memory_format=torch.channels_last)

    def back(gradient: Tensor) -> Tensor:
        # As wide as it was: `reach` lets no other convolution pass.
        return F.conv2d(gradient, kernel, None, 1, padding, convolution.dilation, groups)

    return back


def _group_norm(norm: nn.GroupNorm, maps: Tensor) -> tuple[Tensor, Back]:
    """y = weight n + bias with n = (x - mean) scale. With g = weight d/dy:
    d/dx = scale (g - mean(g) - n mean(g n)); all means are over a group's channels and cells."""
    groups, channels = norm.num_groups, norm.num_channels
    made, means, scales = torch.native_group_norm(
        *(maps, norm.weight, norm.bias, len(maps), channels),
        *(maps[0, 0].numel(), groups, norm.eps),
    )
    mean, scale = (each[0].repeat_interleave(channels // groups) for each in (means, scales))
    cells = _by_cell(maps.contiguous(memory_format=torch.channels_last))[0]
    normal = (cells - mean) * scale
    weight = torch.ones_like(scale) if norm.weight is None else norm.weight

    def group_mean(sums: Tensor) -> Tensor:
        means = (weight * sums).unflatten(1, (groups, -1)).mean(2) / len(normal)
        repeated: Tensor = means.repeat_interleave(channels // groups, 1)[:, None]
        return repeated

    def back(gradient: Tensor) -> Tensor:
        by_cell = _by_cell(gradient)
        mean, along = group_mean(by_cell.sum(1)), group_mean((by_cell * normal).sum(1))
        by_cell.mul_(scale * weight).sub_(scale * mean).addcmul_(normal, scale * along, value=-1)
        return gradient

    return made, back


def _by_cell(maps: Tensor) -> Tensor:
    """[n, h * w, C] of [n, C, h, w] in the order of channels_last: a view."""
    return maps.permute(0, 2, 3, 1).view(len(maps), -1, maps.shape[1])

"""A detector's outputs while one channel of something is zero: the ways to compute them.

A `Removal` gives the outputs for a few channels at a time, as rows, so that memory is bounded by
whoever asks. What is cheapest depends on what a box's outputs are made from:

- pooled features and a head that begins with a linear layer: that layer's output without channel c
  is the output minus W[:, c] r[c], so that only the small rest of the head runs for every channel;
- pooled features and another head: batches of them;
- a cell of a convolutional head with local reach: windows, or whole maps where that is less;
- anything else: the part, or the whole network from its pixels, once for each channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handlers.detectors.base import AllParts, Cells, LinearStart, Part, RoIs
from handlers.evidence.activations import Call
from handlers.evidence.scene import Scene
from handlers.evidence.windows import cut_windows
from handlers.tap import masked
from handlers.targets.registry import Outputs

# What a head holds at a time, in multiples of its input; what a backbone holds at a time, in
# multiples of the pixels of one colour.
HELD, HELD_BY_BACKBONE = 4, 64


@dataclass(frozen=True)
class Removal:
    """How to compute outputs without channels.

    places: int64 [n], the detections whose outputs change at all.
    rows: for int64 channels [k], of which -1 removes none, the outputs of these detections without
        the first, then without the second, and so on: k * n rows.
    floats: how many a channel takes in memory meanwhile.
    """

    places: Tensor
    rows: Callable[[Tensor], Outputs]
    floats: int


def of_pooled(part: RoIs, places: Tensor, at: Call | None = None) -> Removal:
    """Of the pooled features of detections at int64 `places` [n], or of what a module of the head
    makes of them."""
    if part.linear is not None and at is None:
        return _of_linear(part, part.linear, places)
    pooled, number = part.pooled[places], len(places)

    def rows(channels: Tensor) -> Outputs:
        batch, every = pooled.repeat(len(channels), 1, 1, 1), channels.repeat_interleave(number)
        with _removed(batch, every, at):
            return part.head_at(batch, places.repeat(len(channels)))

    return Removal(places, rows, HELD * pooled.numel())


def _of_linear(part: RoIs, linear: LinearStart, places: Tensor) -> Removal:
    pooled = part.pooled[places]
    weight = linear.weight.flatten(2).permute(1, 2, 0)  # [C, p * q, D]
    hidden = F.linear(pooled.flatten(1), linear.weight.flatten(1), linear.bias)  # [n, D]
    by_channel = pooled.flatten(2).transpose(0, 1)  # [C, n, p * q]

    def rows(channels: Tensor) -> Outputs:
        own = channels.clamp(min=0)
        share = by_channel[own] * (channels >= 0)[:, None, None]
        without = torch.baddbmm(hidden.expand(len(own), -1, -1), share, weight[own], alpha=-1)
        return linear.rest(without.flatten(0, 1), places.repeat(len(own)))

    return Removal(places, rows, 2 * hidden.numel())


def of_cells(
    part: Cells,
    maps: Sequence[Tensor],
    level: int,
    places: Tensor,
    at: Call | None = None,
    resized: bool = False,
) -> Removal:
    """Of the feature map [1, C, h, w] of a level for detections at int64 `places` [n] that read it,
    or of what a module of the head makes of it; `resized`: on another grid."""
    reach, own = part.reach(level), maps[level]
    every = maps if part.convolve_all else [own]
    cells = sum(each[0, 0].numel() for each in every)
    few = reach is not None and len(places) * (2 * reach + 1) ** 2 < cells
    if few and not resized:
        found = _of_windows(part, own, level, places, at)
        # A head of other people's code may look further on this picture than it did before.
        unchanged = torch.full_like(places[:1], -1)
        if part.whole is None or found.rows(unchanged).close_to(part.whole.rows(places)):
            return found
    return _of_whole(part, maps, level, places, at)


def _of_windows(part: Cells, maps: Tensor, level: int, places: Tensor, at: Call | None) -> Removal:
    reach, number = part.reach(level) or 0, len(places)
    windows, inside = cut_windows(maps, reach, part.row[places], part.column[places])
    windows = windows.contiguous()  # other people's heads may have views that need it

    def rows(channels: Tensor) -> Outputs:
        several = len(channels)
        every = channels.repeat_interleave(number)
        batch, mask = windows.repeat(several, 1, 1, 1), inside.repeat(several, 1, 1, 1)
        with masked(part.convolutions(level), mask), _removed(batch, every, at):
            heads = part.convolve(batch, level)
        middle = torch.full_like(every, reach)
        where = (torch.arange(len(every), device=every.device), middle, middle)
        return part.read(heads, places.repeat(several), where)

    return Removal(places, rows, HELD * windows.numel())


def _of_whole(
    part: Cells, maps: Sequence[Tensor], level: int, places: Tensor, at: Call | None
) -> Removal:
    number, own = len(places), maps[level]

    def convolve(batch: Tensor) -> Mapping[str, Tensor]:
        if part.convolve_all is None:
            return part.convolve(batch, level)
        every = [each.expand(len(batch), -1, -1, -1) for each in maps]
        every[level] = batch
        return part.convolve_all(every)[level]

    def rows(channels: Tensor) -> Outputs:
        batch = own.repeat(len(channels), 1, 1, 1)
        with _removed(batch, channels, at):
            heads = convolve(batch)
        picture = torch.arange(len(batch), device=places.device).repeat_interleave(number)
        again = places.repeat(len(batch))
        return part.read(heads, again, (picture, part.row[again], part.column[again]))

    every = maps if part.convolve_all else [own]
    return Removal(places, rows, HELD * sum(each.numel() for each in every))


def of_maps(part: Part | AllParts, maps: Sequence[Tensor], level: int) -> Removal:
    """Of the feature map of a level, for all detections."""

    def without(channel: Tensor) -> Outputs:
        changed = [*maps]
        changed[level] = maps[level].clone()
        with _removed(changed[level], channel, None):
            return part.outputs(changed)

    return _one_by_one(part, maps, without)


def of_head(part: Part | AllParts, maps: Sequence[Tensor], at: Call) -> Removal:
    """Of what a module of the head gives, for all detections."""

    def without(channel: Tensor) -> Outputs:
        with _removed(maps[0], channel, at):
            return part.outputs(maps)

    return _one_by_one(part, maps, without)


def _one_by_one(
    part: Part | AllParts, maps: Sequence[Tensor], without: Callable[[Tensor], Outputs]
) -> Removal:
    def rows(channels: Tensor) -> Outputs:
        return Outputs.cat([without(channel) for channel in channels[:, None]])

    # One after the other: what is kept of each is small.
    return Removal(_all(part), rows, max(each.numel() for each in maps))


def of_backbone(scene: Scene, part: Part | AllParts, at: Call) -> Removal:
    """Of what a module of the backbone gives, for all detections."""
    once = _spreads(scene, at)

    def rows(channels: Tensor) -> Outputs:
        pixels = scene.pixels if once else scene.pixels.expand(len(channels), -1, -1, -1)
        with _removed(pixels, channels, at):
            maps = scene.maps_of(pixels)
        found = []
        for row in range(len(channels)):
            own = [each[row : row + 1] if len(each) > 1 else each for each in maps]
            found.append(part.outputs(own))
        return Outputs.cat(found)

    return Removal(_all(part), rows, HELD_BY_BACKBONE * scene.pixels[0, 0].numel())


def _spreads(scene: Scene, at: Call) -> bool:
    """Whether what follows the module takes several maps where it gave one, so that what comes
    before it need not run again for each of them.

    To add several maps to one that came before broadcasts; to put them side by side fails, and code
    that reshapes may do anything, so it is tried out on three copies.
    """
    try:
        with _removed(scene.pixels, torch.full((3,), -1, device=scene.pixels.device), at):
            maps = scene.maps_of(scene.pixels)
    except RuntimeError:  # sizes that do not fit; another error is met again
        return False
    plain = scene.maps_of(scene.pixels)
    return all(
        len(each) in (1, 3) and each.shape[1:] == own.shape[1:] and _close(each, own)
        for each, own in zip(maps, plain, strict=True)
    )


def _close(several: Tensor, one: Tensor) -> bool:
    """Each of several maps is, but for a thousandth of the largest, that one."""
    return bool((several - one).abs().max() <= 1e-3 * one.abs().max())


def _all(part: Part | AllParts) -> Tensor:
    return torch.arange(len(part.level), device=part.level.device)


def _zero(batch: Tensor, channels: Tensor) -> None:
    """Of batch [B, C, h, w] channels int64 [B] become zero in place, but for those of -1."""
    row, own = torch.arange(len(batch), device=batch.device), channels.clamp(min=0)
    batch[row, own] *= (channels < 0).to(batch.dtype)[:, None, None]


@contextmanager
def _removed(batch: Tensor, channels: Tensor, at: Call | None) -> Iterator[None]:
    """Removes channels int64 [B] from batch [B, C, h, w], in place; or, while open, from what a
    module gives. Of one map [1, C, h, w] that gives as many as there are channels."""
    if at is None:
        _zero(batch, channels)
        yield
        return
    seen = 0

    def remove(module: nn.Module, arguments: object, output: Tensor) -> Tensor | None:
        nonlocal seen
        seen += 1
        if seen != at.number + 1:
            return None
        changed = output.expand(len(channels), -1, -1, -1).clone()
        _zero(changed, channels)
        return changed

    handle = at.layer.module.register_forward_hook(remove)
    try:
        yield
    finally:
        handle.remove()

"""Gradients through heads that are chains of modules: a tower, and one last convolution.

Only towers that the target depends on run. The last convolution is asked for one cell of each
detection, so that it costs next to nothing however many classes it tells apart. A tower of plain
convolutions runs on the window that a detection's cell sees, which shrinks with every layer. One
with a GroupNorm couples all cells of a map: it runs on the whole map, once forward, and backward
for each detection of a chunk as one batch; there the cost is the arithmetic of its convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handlers.cam.convolved import ConvolvedGradient
from handlers.cam.gradient import DenseGradient, LocalGradient, MapGradient
from handlers.detectors.base import Cells
from handlers.detectors.torchvision_base import reach
from handlers.evidence.chain import Passed, passed
from handlers.evidence.scene import Piece, Question, in_chunks
from handlers.evidence.windows import cut_windows, spread_windows
from handlers.targets.registry import Outputs


@runtime_checkable
class Chained(Protocol):
    """A detector whose head is chains of modules, each run one after the other."""

    def head_modules(self, level: int) -> list[list[nn.Module]]:
        """The chains that run on a level; several may begin with the same modules."""


@dataclass(frozen=True)
class Tower:
    """modules: one after the other; none where a head is one convolution. lasts: the convolution
    that ends each chain which the tower begins."""

    modules: tuple[nn.Module, ...]
    lasts: tuple[nn.Conv2d, ...]

    @cached_property
    def coupled(self) -> bool:
        """It couples all cells of a map."""
        return any(isinstance(each, nn.GroupNorm) for each in self.modules)

    @cached_property
    def radius(self) -> int:
        """How many cells around its own an output depends on, were there no GroupNorm."""
        return reach(each for each in self.modules if isinstance(each, nn.Conv2d)) or 0

    @cached_property
    def last_radius(self) -> int:
        """How many cells of what the tower gives the last convolutions see around one."""
        return max(reach([each]) or 0 for each in self.lasts)


def towers_of(question: Question, part: Cells, level: int) -> list[Tower]:
    """Of a level's head; none where it is not made of chains of known modules."""
    detector = question.scene.detector
    if question.layer is not None or part.whole is None or part.convolve_all:
        return []
    if not isinstance(detector, Chained):
        return []
    found: dict[tuple[nn.Module, ...], list[nn.Conv2d]] = {}
    for chain in detector.head_modules(level):
        leaves = [leaf for each in chain for leaf in _leaves(each)]
        *modules, last = leaves
        if type(last) is not nn.Conv2d or not all(map(_plain, leaves)):
            return []
        found.setdefault(tuple(modules), []).append(last)
    towers = [Tower(modules, tuple(lasts)) for modules, lasts in found.items()]
    coupled = any(each.coupled for each in towers)
    modules = [module for each in towers for module in (*each.modules, *each.lasts)]
    if coupled:
        known = all(isinstance(each, (nn.Conv2d, nn.GroupNorm, nn.ReLU)) for each in modules)
        known = known and all(_begins_with_convolution(each) for each in towers)
        modules = [each for each in modules if not isinstance(each, nn.GroupNorm)]
    else:
        known = True
    return towers if known and reach(modules) is not None else []


def _begins_with_convolution(tower: Tower) -> bool:
    first = next(iter(tower.modules), None)
    return isinstance(first, nn.Conv2d) and first.groups == 1


def _leaves(module: nn.Module) -> list[nn.Module]:
    """Also those that stand in a chain several times."""
    several = module.named_modules(remove_duplicate=False)
    return [each for _, each in several if not any(True for _ in each.children())]


def _plain(module: nn.Module) -> bool:
    """Known here to do no more than its type says; of a group of one channel, a single cell has no
    statistics."""
    if isinstance(module, nn.GroupNorm):
        return type(module) is nn.GroupNorm and module.num_groups < module.num_channels
    return not isinstance(module, nn.Conv2d) or type(module) is nn.Conv2d


class OtherwiseError(Exception):
    """The head is no chain of its modules, one after the other: it comes to other scalars."""


@dataclass(frozen=True)
class Uses:
    """What the question's scalars need of a level's towers.

    scalars: of each tower how many depend on it. outputs: names of what depends on no other tower
    than these.
    """

    scalars: list[int]
    outputs: frozenset[str]


def from_towers(
    question: Question, part: Cells, level: int, towers: Sequence[Tower], uses: Uses
) -> Iterator[Piece]:
    """For the detections of a level. Raises OtherwiseError, as a rule before the first of them."""
    places = torch.where(part.level == level)[0]
    used = [each for each, count in zip(towers, uses.scalars, strict=True) if count]
    run = _on_whole_map if any(each.coupled for each in used) else _on_windows
    yield from run(question, part, level, towers, uses, places)


def _blank(tower: Tower, places: Tensor, like: Tensor) -> Tensor:
    """Instead of what a tower gave the last convolutions to see."""
    side = 2 * tower.last_radius + 1
    return like.new_zeros(len(places), tower.lasts[0].in_channels, side, side)


def uses_of(question: Question, part: Cells, level: int, towers: Sequence[Tower]) -> Uses:
    """What the scalars of a level's detections need of its towers."""
    maps, places = question.scene.maps[level], torch.where(part.level == level)[0][:1]
    with torch.enable_grad():
        blank = [_blank(each, places, maps).requires_grad_() for each in towers]
        outputs = _outputs(part, level, towers, places, maps, blank)
        scalars = [_depends(each, blank) for each in question.scalars(outputs)]
        counts = [sum(each) for each in zip(*scalars, strict=True)]
        names = {
            name
            for name in outputs.names()
            for needs in [_depends(outputs[name], blank)]
            if any(needs)
            and all(count or not need for count, need in zip(counts, needs, strict=True))
        }
    return Uses(counts, frozenset(names))


def _depends(value: Tensor, given: Sequence[Tensor]) -> list[bool]:
    """For each of what was given whether the value depends on it."""
    (found,) = _gradients([value], given)
    return [each is not None for each in found]


def _outputs(
    part: Cells,
    level: int,
    towers: Sequence[Tower],
    places: Tensor,
    maps: Tensor,
    given: Sequence[Tensor],
) -> Outputs:
    """Those of detections, of the windows [n, C, s, s] around their cells of what each tower gave
    for a level's maps. The head runs on maps of one cell, without the towers; only its last
    convolutions run, and are shown the windows."""
    nothing = maps.new_zeros(len(places), maps.shape[1], 1, 1)
    zero = torch.zeros_like(places)
    where = (torch.arange(len(places), device=places.device), zero, zero)
    with ExitStack() as stack:
        for tower, windows in zip(towers, given, strict=True):
            for module in tower.modules:
                stack.enter_context(_skipped(module))
            for last in tower.lasts:
                stack.enter_context(_shown(last, windows))
        return part.read(part.convolve(nothing, level), places, where)


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    """While open, `module` does something else."""
    own = module.__dict__
    before = own.get("forward")
    own["forward"] = forward
    try:
        yield
    finally:
        del own["forward"]
        if before is not None:
            own["forward"] = before


def _skipped(module: nn.Module) -> AbstractContextManager[None]:
    """While open, `module` gives zeros of the shape that it would give."""

    def forward(*arguments: Tensor, **named: Tensor) -> Tensor:
        given = [*arguments, *named.values()][0]
        channels = module.out_channels if isinstance(module, nn.Conv2d) else given.shape[1]
        return given.new_zeros(len(given), channels, *given.shape[2:])

    return _instead(module, forward)


def _shown(last: nn.Conv2d, windows: Tensor) -> AbstractContextManager[None]:
    """While open, `last` gives what it makes of the middles of windows [n, C, s, s]: [n, K, 1, 1].
    Windows are as large as it sees, so that it needs no padding."""
    windows = _cropped(windows, windows.shape[-1] // 2 - (reach([last]) or 0))

    def forward(*_: Tensor, **__: Tensor) -> Tensor:
        weight, bias = last.weight, last.bias
        if last.groups == 1 and windows.shape[-2:] == weight.shape[-2:]:  # the usual, and faster
            return F.linear(windows.flatten(1), weight.flatten(1), bias)[..., None, None]
        return F.conv2d(windows, weight, bias, 1, 0, last.dilation, last.groups)

    return _instead(last, forward)


def _cropped(maps: Tensor, margin: int) -> Tensor:
    height, width = maps.shape[-2:]
    return maps[..., margin : height - margin, margin : width - margin]


def _check(
    question: Question,
    part: Cells,
    level: int,
    places: Tensor,
    outputs: Outputs,
    names: frozenset[str],
) -> None:
    """Raises OtherwiseError if the detector itself came to other outputs: modules may be wired
    otherwise than they are listed, or be called by functions. (A target may be the same for all
    that is large, as a probability is.)"""
    assert part.whole is not None  # detectors with chains have it
    expected = part.whole.rows(places)
    if not all(name in expected for name in names):  # not kept, such as FCOS's centerness
        with torch.no_grad():
            expected = part.outputs_at(question.scene.maps[level], level, places)
    if not Outputs(**{name: outputs[name] for name in names}).close_to(expected):
        raise OtherwiseError


def _scalars(
    question: Question,
    part: Cells,
    level: int,
    towers: Sequence[Tower],
    uses: Uses,
    places: Tensor,
    given: Sequence[Tensor],
) -> Sequence[Tensor]:
    """The question's scalars, of the `_outputs` that have passed the `_check`."""
    outputs = _outputs(part, level, towers, places, question.scene.maps[level], given)
    _check(question, part, level, places, outputs, uses.outputs)
    return question.scalars(outputs)


def _gradients(
    scalars: Sequence[Tensor], leaves: Sequence[Tensor]
) -> Iterator[list[Tensor | None]]:
    """For each scalar d scalar_n / d leaf_n of each leaf, None where it does not depend on it."""
    for each in scalars:
        if each.requires_grad:
            yield list(
                torch.autograd.grad(each.sum(), leaves, retain_graph=True, allow_unused=True)
            )
        else:
            yield [None] * len(leaves)


def _on_windows(
    question: Question,
    part: Cells,
    level: int,
    towers: Sequence[Tower],
    uses: Uses,
    places: Tensor,
) -> Iterator[Piece]:
    maps = question.scene.maps[level]
    every = list(zip(towers, uses.scalars, strict=True))
    radius = max((tower.radius + tower.last_radius for tower, used in every if used), default=0)
    for own in in_chunks(len(places), 4 * maps.shape[1] * (2 * radius + 1) ** 2):
        own_places = places[own]
        row, column = part.row[own_places], part.column[own_places]
        with torch.enable_grad():
            leaf, mask = cut_windows(maps, radius, row, column)
            leaf.requires_grad_()
            given = [
                _shrunk(tower, leaf, mask, radius) if used else _blank(tower, own_places, maps)
                for tower, used in every
            ]
            scalars = _scalars(question, part, level, towers, uses, own_places, given)
            found = [
                torch.zeros_like(leaf) if each is None else each * mask
                for (each,) in _gradients(scalars, [leaf])
            ]
        squares, corner = leaf.detach(), (row - radius, column - radius)
        yield Piece(
            own_places,
            [LocalGradient(maps[0], each, *corner, squares) for each in found],
            [question.scene.grid(maps)] * len(own),
        )


def _shrunk(tower: Tower, windows: Tensor, mask: Tensor, radius: int) -> Tensor:
    """What a tower makes of the middles of windows [n, C, s, s] of that radius. Zero padding is
    what its convolutions see off the map, so that is zeroed (by the mask) before each; the windows
    are so already."""
    margin = radius - tower.radius - tower.last_radius
    windows, mask = _cropped(windows, margin), _cropped(mask, margin)
    # A copy: the first module may work in place. Convolutions are faster on it in this order.
    windows, zeroed = windows.clone(memory_format=torch.channels_last), True
    for module in tower.modules:
        wide = reach([module]) or 0
        if not wide:
            windows, zeroed = module(windows), False
            continue
        assert isinstance(module, nn.Conv2d)  # the only one with a reach
        windows = _convolved(module, windows if zeroed else windows * mask)
        mask, zeroed = _cropped(mask, wide), False
    return windows if zeroed else windows * mask


def _convolved(module: nn.Conv2d, windows: Tensor) -> Tensor:
    """The module on windows [n, C, s, s] without padding."""
    weight, bias = module.weight, module.bias
    if weight.shape == (module.groups, 1, *windows.shape[-2:]) and len(weight) == windows.shape[1]:
        # Each channel by itself on one place: a sum of products, several times faster.
        values = (windows * weight[:, 0]).sum((2, 3), keepdim=True)
        return values if bias is None else values + bias[:, None, None]
    return F.conv2d(windows, weight, bias, 1, 0, module.dilation, module.groups)


def _on_whole_map(
    question: Question,
    part: Cells,
    level: int,
    towers: Sequence[Tower],
    uses: Uses,
    places: Tensor,
) -> Iterator[Piece]:
    maps = question.scene.maps[level].detach()
    with torch.no_grad():
        runs = [
            passed(tower.modules, maps) if used else None
            for tower, used in zip(towers, uses.scalars, strict=True)
        ]
    # Of each detection for each scalar its gradient behind each tower, and all of it, if asked for;
    # and on the way one more.
    kept = 1 + 2 * sum(uses.scalars)
    for own in in_chunks(len(places), kept * maps.numel()):
        own_places = places[own]
        row, column = part.row[own_places], part.column[own_places]
        with torch.enable_grad():
            given = [
                _blank(tower, own_places, maps)
                if run is None
                else cut_windows(run.given, tower.last_radius, row, column)[0]
                for tower, run in zip(towers, runs, strict=True)
            ]
            leaves = [each.requires_grad_() for each in given]
            scalars = _scalars(question, part, level, towers, uses, own_places, given)
            found = list(_gradients(scalars, leaves))
        with torch.no_grad():
            evidence = [_back(maps, runs, each, row, column) for each in found]
        yield Piece(own_places, evidence, [question.scene.grid(maps)] * len(own))


def _back(
    maps: Tensor,
    runs: Sequence[Passed | None],
    gradients: Sequence[Tensor | None],
    row: Tensor,
    column: Tensor,
) -> MapGradient:
    """d scalar_n / d map of those on the windows, around rows and columns [n], of what each tower
    gave."""
    size = maps.shape[-2:]
    behind = [
        run.back(spread_windows(each, row, column, *size))
        for run, each in zip(runs, gradients, strict=True)
        if run is not None and each is not None
    ]
    if not behind:
        return DenseGradient(maps[0], maps.new_zeros(1).expand(len(row), *maps.shape[1:]))
    return ConvolvedGradient(maps[0], behind)

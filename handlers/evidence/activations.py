"""What modules give, found where they run: for methods that change it or look at it alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from handlers.detectors.base import Cells
from handlers.evidence.cells import Shown, shown_for
from handlers.evidence.scene import Question
from handlers.tap import Layer, Tap


@dataclass(frozen=True)
class Call:
    """A module, in one of the calls (0, 1, ...) that a forward pass makes of it."""

    layer: Layer
    number: int


def last_call(layer: Layer, run: Callable[[], object]) -> tuple[Call, Tensor]:
    """The last of the calls that `run` makes, and what the module gives there: float32
    [B, C, h, w]. Raises RequestError if that is no map."""
    with torch.no_grad(), Tap(layer) as tap:
        run()
    return Call(layer, len(tap.caught) - 1), tap.map().float()


def call_for_level(
    question: Question, part: Cells, layer: Layer, level: int
) -> tuple[Call | None, Shown]:
    """The call in which a module of a convolutional head runs for a level's map, and what it gives.

    None where the level's outputs do not depend on it: then what it gives for another map stands
    in. Raises RequestError if it runs for none.
    """
    maps = question.scene.maps[level]
    shown = shown_for(replace(question, layer=layer), part, level)
    if not shown.depends:
        return None, shown
    if shown.call is not None:
        return Call(layer, shown.call), shown
    return last_call(layer, lambda: part.convolve(maps, level))[0], shown


def calls_by_level(part: Cells, maps: Sequence[Tensor], number: int) -> list[int]:
    """Of so many calls of a module of a convolutional head the last for each map that it ran on."""
    levels = len(maps if part.convolve_all else part.level.unique())
    each_level = max(1, number // levels)
    return [*range(each_level - 1, number, each_level)]


def calls_for_all(question: Question, layer: Layer) -> list[tuple[Call, Tensor]]:
    """The calls in which a module of a head runs for all outputs together, and what it gives,
    [C, h, w]: of a convolutional head the last for each map, else the last. A module that runs for
    other maps only has one call, which is never made. Raises RequestError if it gives no map."""
    part, maps = question.part, question.scene.maps
    with torch.no_grad(), Tap(layer) as tap:
        part.outputs(maps)
    calls = [len(tap.caught) - 1]
    if isinstance(part, Cells):
        calls = calls_by_level(part, maps, len(tap.caught)) or [0]
        for level, each in enumerate(maps):
            if not tap.caught:  # of SSD's heads that of another map
                with torch.no_grad(), Tap(layer) as tap:
                    part.convolve(each, level)
    tap.map()  # refuses what is no map
    return [(Call(layer, call), tap.caught[call][0].float()) for call in calls]

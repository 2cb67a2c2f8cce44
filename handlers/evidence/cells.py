"""Gradients of detections that each read one cell of a convolutional head: on windows of a feature
map where the head is local, else on all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from handlers.cam.gradient import DenseGradient, LocalGradient
from handlers.detectors.base import Cells
from handlers.evidence.scene import Piece, Question, in_chunks, jacobian, row_gradients, tapped
from handlers.evidence.structure import forget, structures
from handlers.evidence.towers import OtherwiseError, from_towers
from handlers.evidence.windows import cut_windows
from handlers.tap import Tap, masked
from handlers.targets.registry import Outputs


@dataclass(frozen=True)
class Shown:
    """What the question's layer makes of a level's map: activation [C, h, w], in which of its calls
    (None for the last), and whether that level's scalars depend on it."""

    activation: Tensor
    call: int | None = None
    depends: bool = True


def shown_of(question: Question, part: Cells, level: int) -> Shown | None:
    """None if the layer does not run for this level."""
    assert question.layer is not None  # whoever asks has set it
    maps = question.scene.maps[level]
    if part.convolve_all is None:
        with torch.no_grad(), Tap(question.layer) as tap:
            part.convolve(maps, level)
        return Shown(tap.map()[0]) if tap.caught else None
    # A head that takes all maps runs the module on several of them.
    places = torch.where(part.level == level)[0]
    with torch.enable_grad(), Tap(question.layer) as tap:
        scalars = question.scalars(part.outputs_at(maps, level, places))
        found = [each.sum() for each in scalars if each.requires_grad]
        total = torch.stack(found).sum() if found else None
    if not tap.caught:
        return None
    calls: list[int] = []
    if total is not None:
        gradients = torch.autograd.grad(total, tap.caught, allow_unused=True)
        calls = [call for call, each in enumerate(gradients) if each is not None]
    call = calls[-1] if calls else None
    return Shown(tap.caught[-1 if call is None else call].detach()[0], call, bool(calls))


def shown_for(question: Question, part: Cells, level: int) -> Shown:
    """The same, but where the level's scalars do not depend on the layer, because the head has a
    module for each map, what it makes of another map stands in. Raises RequestError if the layer
    runs for none."""
    shown = shown_of(question, part, level)
    if shown is not None:
        return shown
    others = (shown_of(question, part, other) for other in range(len(question.scene.maps)))
    shown = next((each for each in others if each is not None), None)
    if shown is None:
        assert question.layer is not None  # shown_of has seen it
        raise Tap(question.layer).error("does not run for this target")
    return replace(shown, depends=False)


def from_levels(question: Question, part: Cells) -> Iterator[Piece]:
    """On every feature map that emitted some of the detections."""
    for level, towers, uses in structures(question, part):
        if uses is None:
            yield from from_cells(question, part, level)
            continue
        try:
            yield from from_towers(question, part, level, towers, uses)
        except OtherwiseError:  # the other ways take any head, and what came is made anew
            forget(question)
            yield from from_cells(question, part, level)


def from_cells(
    question: Question, part: Cells, level: int, shown: Shown | None = None
) -> Iterator[Piece]:
    """On one feature map; or on what the question's layer makes of it."""
    maps = question.scene.maps[level]
    places = torch.where(part.level == level)[0]
    reach = part.reach(level)
    shown = shown or Shown(maps[0])
    few = reach is not None and (2 * reach + 1) ** 2 < maps.shape[-2] * maps.shape[-1]
    if few and shown.activation.shape[-2:] == maps.shape[-2:]:
        yield from _from_windows(question, part, level, shown)
    else:
        yield from _from_whole(question, part, level, shown, places)


def _from_whole(
    question: Question, part: Cells, level: int, shown: Shown, places: Tensor
) -> Iterator[Piece]:
    """For detections at int64 `places`, from the whole map: batched vector-Jacobian products."""
    with torch.enable_grad():
        leaf = question.scene.maps[level].detach().requires_grad_(question.layer is None)

        def run() -> Sequence[Tensor]:
            return question.scalars(part.outputs_at(leaf, level, places))

        found, leaf_of_layer = tapped(run, leaf, question, shown.call)
    geometry = question.scene.grid(leaf_of_layer)
    for own in in_chunks(len(places), leaf_of_layer.numel() * len(found)):
        gradients = [jacobian(each[own], [leaf_of_layer])[0][:, 0] for each in found]
        yield Piece(
            places[own],
            [DenseGradient(leaf_of_layer.detach()[0], each) for each in gradients],
            [geometry] * len(own),
        )


def _from_windows(question: Question, part: Cells, level: int, shown: Shown) -> Iterator[Piece]:
    """The same from the windows that the head sees of the map: as a batch, once forward and back.

    Zero padding is part of what the head sees at the map's edge, so cells off the map are zeroed
    again before every convolution. A head of other people's code may turn out to look further on
    this picture than it did before: then the whole map is taken.
    """
    maps = question.scene.maps[level]
    places = torch.where(part.level == level)[0]
    reach = part.reach(level) or 0
    side = 2 * reach + 1
    for own in in_chunks(len(places), len(maps[0]) * side * side * 4):
        row, column = part.row[places[own]], part.column[places[own]]
        windows, mask = cut_windows(maps, reach, row, column)
        windows = windows.contiguous()  # other people's heads may have views that need it
        centre = torch.full_like(row, reach)
        where = (torch.arange(len(own), device=row.device), centre, centre)
        seen: list[Outputs] = []

        def head(
            windows: Tensor,
            own: Tensor = own,
            where: tuple[Tensor, Tensor, Tensor] = where,
            seen: list[Outputs] = seen,
        ) -> Outputs:
            seen.append(part.read(part.convolve(windows, level), places[own], where))
            return seen[-1]

        with masked(part.convolutions(level), mask):
            windows.requires_grad_(question.layer is None)
            gradients = row_gradients(windows, head, question, shown.call)
        if part.whole is not None and not seen[0].close_to(part.whole.rows(places[own])):
            yield from _from_whole(question, part, level, shown, places[own])
            continue
        yield Piece(
            places[own],
            [
                LocalGradient(shown.activation, each * mask, row - reach, column - reach)
                for each in gradients
            ],
            [question.scene.grid(shown.activation)] * len(own),
        )

"""What the target says without one channel of what is looked at, for Ablation-CAM.

The candidates stay what they are ("fixed" semantics): a channel is set to zero in what the head
reads, or in what a module gives, and the same candidates are scored. Each feature map has channels
of its own: the pyramid's are those of all maps, side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from handlers.cam.channels import ChannelScores, most_and_least_shown
from handlers.detectors.base import AllParts, Cells, RoIs
from handlers.evidence import removal, tutorial_ablation
from handlers.evidence.activations import Call, call_for_level, calls_for_all, last_call
from handlers.evidence.gradients import side_by_side
from handlers.evidence.removal import Removal
from handlers.evidence.scene import Piece, Question, Where, in_chunks
from handlers.images import Geometry
from handlers.layers import PYRAMID, ROI
from handlers.schema import ExplainRequest, RequestError
from handlers.tap import Layer
from handlers.targets.registry import Outputs

# Of each scalar of the target its value [n], and that without each channel [n, C].
Measured = list[tuple[Tensor, Tensor]]


@torch.no_grad()
def pieces(question: Question, where: Where, request: ExplainRequest) -> Iterator[list[Piece]]:
    """Groups of pieces with ChannelScores. Raises RequestError for a layer of which each box has
    its own where boxes are explained together."""
    share = request.channels
    if request.ablation == "tutorial":
        yield [tutorial_ablation.piece(question, share)]
    elif where.module is not None and not where.head:
        yield [_of_backbone(question, where.module, share)]
    elif where.module is None and where.name != ROI:
        yield from _of_levels(question, where, share)
    elif isinstance(question.part, RoIs) and not question.joint:
        yield from _of_each_box(question, question.part, where.module, share)
    elif where.module is None or isinstance(question.part, (RoIs, AllParts)):
        raise RequestError("layer", where.name, "emitting, pyramid or a module that boxes share")
    elif isinstance(question.part, Cells) and not question.joint:
        for level in question.part.level.unique().tolist():
            yield [_of_dense_head(question, question.part, where.module, level, share)]
    else:
        yield from _of_shared_head(question, where.module, share)


def _of_levels(question: Question, where: Where, share: float) -> Iterator[list[Piece]]:
    """On the feature maps: where each box reads one, on that which emitted it."""
    scene, part, maps = question.scene, question.part, question.scene.maps
    sizes = [each.shape[1] for each in maps]
    together = None
    if where.name == PYRAMID:
        together = side_by_side([each.abs() for each in maps])[0]
        chosen = _split(most_and_least_shown(together, share), sizes)
    else:
        chosen = [most_and_least_shown(each[0], share) for each in maps]
    asking, found = _Asking(question), {}
    for level in range(len(maps)) if _reads_all(question) else part.level.unique().tolist():
        own = _of_level(question, level)
        measured = asking.measured(own, chosen[level], sizes[level])
        if question.joint or _reads_all(question):
            found[level] = measured
        elif together is None:
            yield [_piece(own.places, maps[level][0], measured, scene.grid(maps[level]))]
        else:
            measured = _side_by_side({level: measured}, sizes)
            yield [_piece(own.places, together, measured, scene.found.frame)]
    if found and together is None:
        yield from _groups(question, [(maps[level][0], each) for level, each in found.items()])
    elif found and together is not None:
        yield [_piece(None, together, _side_by_side(found, sizes), scene.found.frame)]


def _reads_all(question: Question) -> bool:
    """An output may depend on every feature map."""
    part = question.part
    if not isinstance(part, Cells) or not part.convolve_all or not question.joint:
        return not isinstance(part, (RoIs, Cells))
    return any(part.reach(level) is None for level in range(len(question.scene.maps)))


def _of_level(question: Question, level: int) -> Removal:
    part, maps = question.part, question.scene.maps
    if _reads_all(question) or not isinstance(part, (RoIs, Cells)):
        return removal.of_maps(part, maps, level)
    places = torch.where(part.level == level)[0]
    if isinstance(part, RoIs):
        return removal.of_pooled(part, places)
    return removal.of_cells(part, maps, level, places)


def _of_each_box(
    question: Question, part: RoIs, layer: Layer | None, share: float
) -> Iterator[list[Piece]]:
    """On each box's own pooled features, or on what a module of the head makes of them."""
    at, activation = None, part.pooled
    if layer is not None:
        at, activation = last_call(layer, lambda: part.head(part.pooled))
    every = torch.arange(len(activation), device=activation.device)
    all_channels = torch.arange(activation.shape[1], device=activation.device)
    own = removal.of_pooled(part, every, at)
    measured = _Asking(question).measured(own, all_channels, len(all_channels))
    for place, geometry in enumerate(question.scene.box_grids(part)):
        left = torch.ones_like(all_channels, dtype=torch.bool)
        left[most_and_least_shown(activation[place], share)] = False
        scores = [
            (value[place, None], torch.where(left, value[place], changed[place])[None])
            for value, changed in measured
        ]
        yield [_piece(every[place, None], activation[place], scores, geometry)]


def _of_dense_head(
    question: Question, part: Cells, layer: Layer, level: int, share: float
) -> Piece:
    """On what a module of a convolutional head makes of a level's map."""
    scene, maps = question.scene, question.scene.maps
    places = torch.where(part.level == level)[0]
    at, shown = call_for_level(question, part, layer, level)
    activation = shown.activation
    chosen = most_and_least_shown(activation, share)
    if at is None:  # nothing changes
        at, chosen = Call(layer, -1), chosen[:0]
    resized = activation.shape[-2:] != maps[level].shape[-2:]
    own = removal.of_cells(part, maps, level, places, at, resized)
    measured = _Asking(question).measured(own, chosen, len(activation))
    return _piece(places, activation, measured, scene.grid(activation))


def _of_shared_head(question: Question, layer: Layer, share: float) -> Iterator[list[Piece]]:
    """On what a module of the head gives, for outputs that may all depend on it."""
    asking, found = _Asking(question), []
    for at, activation in calls_for_all(question, layer):
        own = removal.of_head(question.part, question.scene.maps, at)
        chosen = most_and_least_shown(activation, share)
        found.append((activation, asking.measured(own, chosen, len(activation))))
    yield from _groups(question, found)


def _of_backbone(question: Question, layer: Layer, share: float) -> Piece:
    scene = question.scene
    at, caught = last_call(layer, lambda: scene.maps_of(scene.pixels))
    own = removal.of_backbone(scene, question.part, at)
    chosen = most_and_least_shown(caught[0], share)
    measured = _Asking(question).measured(own, chosen, len(caught[0]))
    return _piece(None, caught[0], measured, scene.grid(caught))


class _Asking:
    """What the target says of changed outputs."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self._plain: Outputs | None = None

    def measured(self, removal: Removal, channels: Tensor, number: int) -> Measured:
        """For int64 channels [k] of `number`; the others leave the value as it is."""
        values = self._values(removal, channels.new_full((1,), -1))
        several = [each.repeat(1, number) for each in values]
        for own in in_chunks(len(channels), removal.floats):
            for changed, each in zip(several, self._values(removal, channels[own]), strict=True):
                changed[:, channels[own]] = each
        return [(value[:, 0], changed) for value, changed in zip(values, several, strict=True)]

    def _values(self, removal: Removal, channels: Tensor) -> list[Tensor]:
        """Of each scalar what it is without each of the channels: [n, k]."""
        rows, number = removal.rows(channels), len(removal.places)
        if not self.question.joint:
            return [each.reshape(len(channels), number).T for each in self.question.scalars(rows)]
        scalars = [
            self.question.scalars(self._with(removal.places, rows.rows(own)))
            for own in torch.arange(len(channels) * number).split(number)
        ]
        return [torch.stack(each, 1) for each in zip(*scalars, strict=True)]

    def _with(self, places: Tensor, rows: Outputs) -> Outputs:
        """The outputs of all detections, these rows instead of those at `places`."""
        part = self.question.part
        if len(places) == len(part.level):
            return rows
        if self._plain is None:
            self._plain = part.outputs(self.question.scene.maps)
        plain = self._plain
        return plain.with_(
            **{name: plain[name].index_copy(0, places, rows[name]) for name in rows.names()}
        )


def _groups(question: Question, found: Sequence[tuple[Tensor, Measured]]) -> Iterator[list[Piece]]:
    """Of activations [C, h, w] that are looked at together; of explanations that may depend on
    anything each on those where it changes at all, on the first if on none."""
    scene = question.scene
    whole = [_piece(None, each, measured, scene.grid(each)) for each, measured in found]
    if not question.joint:
        yield whole
        return
    changing = [_changes(measured) for _, measured in found]
    for place in whole[0].places.tolist():
        own = [each for each, changes in zip(whole, changing, strict=True) if changes[place]]
        yield [_row(each, place) for each in own or whole[:1]]


def _changes(measured: Measured) -> Tensor:
    """bool [n], whether any channel changes any scalar."""
    several = [(changed != value[:, None]).any(1) for value, changed in measured]
    return torch.stack(several).any(0)


def _row(piece: Piece, place: int) -> Piece:
    own = slice(place, place + 1)
    scores = [
        ChannelScores(each.activation, each.value[own], each.changed[own])
        for each in piece.evidence
    ]
    return Piece(piece.places[own], scores, piece.geometries[own])


def _split(channels: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Which of channels [k] of maps side by side, of `sizes` channels, are each map's own."""
    own, first = [], 0
    for size in sizes:
        own.append(channels[(channels >= first) & (channels < first + size)] - first)
        first += size
    return own


def _side_by_side(found: Mapping[int, Measured], sizes: Sequence[int]) -> Measured:
    """What was measured on some feature maps, as that on all of them side by side."""
    several = []
    for scalar in zip(*found.values(), strict=True):
        by_level = dict(zip(found, scalar, strict=True))
        value = scalar[0][0]
        changed = [
            by_level[level][1] if level in by_level else value[:, None].expand(-1, size)
            for level, size in enumerate(sizes)
        ]
        several.append((value, torch.cat(changed, 1)))
    return several


def _piece(
    places: Tensor | None, activation: Tensor, measured: Measured, geometry: Geometry
) -> Piece:
    """places: None for all."""
    number = len(measured[0][0])
    if places is None:
        places = torch.arange(number, device=activation.device)
    scores = [ChannelScores(activation, value, changed) for value, changed in measured]
    return Piece(places, scores, [geometry] * number)

"""Heatmaps of the chosen boxes of one picture, for one method, one target and one layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.cam.registry import METHODS, Evidence, Method, evidence_of
from handlers.detectors.base import AllParts, Part, Queries
from handlers.evidence import (
    ablation,
    channel_masks,
    gradients,
    joint,
    masked_pictures,
    pixels,
    queries,
)
from handlers.evidence.scene import Piece, Question, Scene, Where
from handlers.images import Geometry, added_on
from handlers.layers import PYRAMID, ROI
from handlers.schema import EMITTING, ExplainRequest
from handlers.tap import NonFiniteError, all_finite
from handlers.time_limit import on_time


@dataclass(frozen=True)
class Heat:
    """One explanation's map.

    place: which of the chosen boxes. heatmap: float32 [h, w], non-negative. activation, gradient:
    [C, h, w] if they were to be kept.
    """

    place: int
    heatmap: Tensor
    geometry: Geometry
    activation: Tensor | None = None
    gradient: Tensor | None = None


# Pieces of the same detections, one on each map that they have evidence on.
Groups = Iterator[list[Piece]]


def heatmaps(question: Question, where: Where, request: ExplainRequest) -> list[Heat]:
    """A map for each explanation, in their order; of several scalars the elementwise maximum."""
    method = METHODS.get(request.method)
    assert method is not None  # Explainer.check has seen it
    found: dict[int, Heat] = {}
    groups = GATHER[evidence_of(request.method)](question, where, request)
    number = 0 if question.joint else len(question.chosen)
    for group in on_time(groups, number, lambda group: len(group[0].places)):
        with torch.no_grad():
            scalars, finest = _added_up(group, method)
            maps = torch.stack(scalars).amax(0)
        _check(maps)
        on_cpu = maps.cpu()
        for row, place in enumerate(finest.places.tolist()):
            raw: tuple[Tensor | None, Tensor | None] = (None, None)
            if request.save_raw:
                here = torch.tensor([row], device=maps.device)
                gradient = finest.evidence[0]
                raw = (gradient.activation.cpu(), gradient.dense(here)[0].cpu())
            # A copy: a view would keep all of them in memory as long as one is kept.
            heat = on_cpu[row].clamp(min=0)
            found[place] = Heat(place, heat, finest.geometries[row], *raw)
    return [found[place] for place in sorted(found)]


def _of_gradients(question: Question, where: Where, request: ExplainRequest) -> Groups:
    if isinstance(question.part, Queries):
        yield from queries.pieces(question, where)
        return
    for piece in _pieces(question, where):
        yield [piece]


def _of_pixels(question: Question, where: Where, request: ExplainRequest) -> Groups:
    yield from pixels.of_pixels(question)


def _of_layer_and_pixels(question: Question, where: Where, request: ExplainRequest) -> Groups:
    if question.joint:
        yield from pixels.of_joint_layer_and_pixels(question, where)
        return
    groups = _of_gradients(question, where, request)
    yield from pixels.of_layer_and_pixels(question, groups)


GATHER: Mapping[Evidence, Callable[[Question, Where, ExplainRequest], Groups]] = {
    Evidence.GRADIENT: _of_gradients,
    Evidence.ACTIVATION: _of_gradients,
    Evidence.ABLATION: ablation.pieces,
    Evidence.CHANNELS_AS_MASKS: channel_masks.pieces,
    Evidence.MASKS: masked_pictures.groups,
    Evidence.PIXELS: _of_pixels,
    Evidence.GUIDED: _of_layer_and_pixels,
}


def _added_up(group: Sequence[Piece], method: Method) -> tuple[list[Tensor], Piece]:
    """For each scalar the maps [n, h, w] of a group, added up on the grid of its finest piece, and
    that piece."""
    several = [[method(each) for each in piece.evidence] for piece in group]
    place = max(range(len(group)), key=lambda each: several[each][0][0].numel())
    finest, totals = group[place], several[place]
    if len(group) == 1:
        return totals, finest
    height, width = totals[0].shape[-2:]

    def added_up(scalar: int, row: int) -> Tensor:
        maps = (
            (own[scalar][row], piece.geometries[row])
            for piece, own in zip(group, several, strict=True)
        )
        return added_on(maps, finest.geometries[row], height, width)

    rows = range(len(finest.places))
    device = totals[0].device
    return [
        torch.stack([added_up(scalar, row) for row in rows]).to(device)
        for scalar in range(len(totals))
    ], finest


def _pieces(question: Question, where: Where) -> Iterator[Piece]:
    if where.module is not None:
        on_layer = gradients.head_layer if where.head else gradients.backbone_layer
        return on_layer(question, where.module)
    on: dict[str, Callable[[Question], Iterator[Piece]]] = {
        EMITTING: gradients.emitting,
        ROI: gradients.roi,
        PYRAMID: gradients.pyramid,
    }
    return on[where.name](question)


def joint_heatmaps(
    scene: Scene,
    part: Part | AllParts,
    scalars: joint.JointScalars,
    where: Where,
    request: ExplainRequest,
) -> list[Heat]:
    """A map for each explanation that `scalars` gives, of methods that look at a gradient. What
    reaches several feature maps is added up on the finest of them."""
    method = METHODS.get(request.method)
    assert method is not None  # Explainer.check has seen it
    needs_gradient = evidence_of(request.method) is Evidence.GRADIENT
    results = joint.joint(scene, part, scalars, where, needs_gradient)
    heats = []
    for place, explanation in enumerate(results):
        every = [each for scalar in explanation for each in scalar]
        finest = max(every, key=lambda each: each.gradient.activation[0].numel())
        size = finest.gradient.activation.shape[-2:]
        with torch.no_grad():
            maps = [
                added_on(
                    ((method(each.gradient)[0], each.geometry) for each in scalar),
                    *(finest.geometry, *size),
                )
                for scalar in explanation
            ]
        _check(*maps)
        raw: tuple[Tensor | None, Tensor | None] = (None, None)
        if request.save_raw:
            gradient = finest.gradient
            raw = (gradient.activation.cpu(), gradient.gradient[0].cpu())
        heat = torch.stack(maps).amax(0).clamp(min=0)
        heats.append(Heat(place, heat, finest.geometry, *raw))
    return heats


def _check(*maps: Tensor) -> None:
    if not all_finite(maps):
        raise NonFiniteError("a heatmap is not finite (NaN or infinity)")


def fused(heats: Sequence[Heat]) -> Heat:
    """One box's maps on several layers as one: the mean of the maps, each divided by its maximum,
    on the finest of their grids."""
    # A box's own grid ends at the box.
    whole = [each for each in heats if not each.geometry.clipped] or heats
    finest = max(whole, key=lambda each: each.heatmap.numel())
    height, width = finest.heatmap.shape
    maps = [
        (each.heatmap / each.heatmap.max(), each.geometry)
        for each in heats
        if each.heatmap.max() > 0
    ]
    total = added_on(maps, finest.geometry, height, width)
    return Heat(finest.place, total / len(heats), finest.geometry)

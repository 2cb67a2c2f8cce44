"""What the target says of the picture under each channel of what is looked at, for Score-CAM.

Each channel is brought to the size of the network input, to values from 0 to 1, and multiplied into
it. The input is what the network takes, normalised: where a channel is zero, its own zero remains,
which is the mean colour of the training pictures (black for networks that take plain pixels). The
candidates stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from handlers.cam.channels import ChannelScores
from handlers.detectors.base import AllParts, Cells, Queries, RoIs
from handlers.evidence.activations import call_for_level, calls_for_all, last_call
from handlers.evidence.gradients import side_by_side
from handlers.evidence.removal import HELD_BY_BACKBONE
from handlers.evidence.scene import Piece, Question, Where, in_chunks
from handlers.images import Geometry
from handlers.layers import PYRAMID, ROI
from handlers.schema import ExplainRequest, RequestError
from handlers.tap import Layer

# As pytorch-grad-cam has it: what keeps a channel that is the same everywhere from dividing by 0.
LEAST_RANGE = 1e-8


@dataclass(frozen=True)
class _LookedAt:
    """activation: [C, h, w]. places: int64 [n], whose explanations look at it, None for all.
    masked: whether its channels are masks: not where the scores do not depend on them."""

    activation: Tensor
    geometry: Geometry
    places: Tensor | None = None
    masked: bool = True


@torch.no_grad()
def pieces(question: Question, where: Where, request: ExplainRequest) -> Iterator[list[Piece]]:
    """Groups of pieces with ChannelScores. Where several maps are looked at, each has a softmax
    over its own channels. Raises RequestError for a layer of which each box has its own where boxes
    are explained together."""
    plain = question.scalars(question.part.outputs(question.scene.maps))
    for group in _looked_at(question, where):
        yield [_piece(question, plain, each) for each in group]


def _piece(question: Question, plain: Sequence[Tensor], looked_at: _LookedAt) -> Piece:
    places = looked_at.places
    if places is None:
        places = torch.arange(len(plain[0]), device=plain[0].device)
    activation, values = looked_at.activation, [each[places] for each in plain]
    several = [each[:, None].repeat(1, len(activation)) for each in values]
    channels = len(activation) if looked_at.masked else 0
    if not looked_at.masked:
        activation = torch.zeros_like(activation)
    for own in in_chunks(channels, HELD_BY_BACKBONE * question.scene.pixels[0, 0].numel()):
        masks = _masks(activation[own], looked_at.geometry, question)
        found = _scalars(question, question.scene.pixels * masks[:, None])
        for changed, each in zip(several, found, strict=True):
            changed[:, own] = each[places]
    scores = [
        ChannelScores(activation, value, changed)
        for value, changed in zip(values, several, strict=True)
    ]
    return Piece(places, scores, [looked_at.geometry] * len(places))


def _masks(channels: Tensor, geometry: Geometry, question: Question) -> Tensor:
    """Channels [k, h, w] on the pixels of the network input, 0 ... 1.

    Bilinear with the outermost cells at the outermost pixels, as pytorch-grad-cam has it: up to
    half a cell off the middles of the cells, where the heatmap is drawn. A box's own channels are
    drawn into the box, off which everything is hidden.
    """
    height, width = question.scene.pixels.shape[-2:]
    if geometry.clipped:
        low, high = _range(channels)
        frame = question.scene.found.frame
        own = ((channels - low) / (high - low + LEAST_RANGE)).cpu()
        drawn = [geometry.onto(each, frame, height, width) for each in own]
        return torch.stack(drawn).to(channels.device)
    masks = F.interpolate(channels[None], (height, width), mode="bilinear", align_corners=True)[0]
    low, high = _range(masks)
    return (masks - low) / (high - low + LEAST_RANGE)


def _range(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The minimum and the maximum of each of [k, h, w]: [k, 1, 1]."""
    return maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)


def _scalars(question: Question, pixels: Tensor) -> list[Tensor]:
    """Each scalar [N] of pictures [B, 3, h, w]: [N, B]."""
    maps = question.scene.maps_of(pixels)
    found = []
    for picture in range(len(pixels)):
        own = [each[picture : picture + 1] for each in maps]
        found.append(question.scalars(question.part.outputs(own)))
    return [torch.stack(each, 1) for each in zip(*found, strict=True)]


def _looked_at(question: Question, where: Where) -> Iterator[list[_LookedAt]]:
    scene, part, layer = question.scene, question.part, where.module
    if layer is not None and not where.head:
        caught = last_call(layer, lambda: scene.maps_of(scene.pixels))[1]
        yield [_LookedAt(caught[0], scene.grid(caught))]
    elif where.name == PYRAMID:
        together = side_by_side([each.abs() for each in scene.maps])[0]
        yield [_LookedAt(together, scene.found.frame)]
    elif layer is None and where.name != ROI:
        yield from _levels(question)
    elif isinstance(part, RoIs) and not question.joint:
        yield from _each_box(question, part, layer)
    elif layer is None or isinstance(part, (RoIs, AllParts)):
        raise RequestError("layer", where.name, "emitting, pyramid or a module that boxes share")
    elif isinstance(part, Cells) and not question.joint:
        for level in part.level.unique().tolist():
            at, shown = call_for_level(question, part, layer, level)
            places = torch.where(part.level == level)[0]
            grid = scene.grid(shown.activation)
            yield [_LookedAt(shown.activation, grid, places, masked=at is not None)]
    else:
        several = [each for _, each in calls_for_all(question, layer)]
        yield [_LookedAt(each, scene.grid(each)) for each in several]


def _levels(question: Question) -> Iterator[list[_LookedAt]]:
    """The feature maps: all that queries read, else those that emitted boxes."""
    scene, part = question.scene, question.part
    levels = part.level.unique().tolist()
    if isinstance(part, Queries):
        levels = [*range(len(scene.maps))]
    maps = {level: scene.maps[level] for level in levels}
    if question.joint or isinstance(part, Queries):
        yield [_LookedAt(each[0], scene.grid(each)) for each in maps.values()]
        return
    for level, each in maps.items():
        yield [_LookedAt(each[0], scene.grid(each), torch.where(part.level == level)[0])]


def _each_box(question: Question, part: RoIs, layer: Layer | None) -> Iterator[list[_LookedAt]]:
    """Each box's own pooled features, or what a module of the head makes of them."""
    activation = part.pooled
    if layer is not None:
        activation = last_call(layer, lambda: part.head(part.pooled))[1]
    for place, geometry in enumerate(question.scene.box_grids(part)):
        own = torch.tensor([place], device=activation.device)
        yield [_LookedAt(activation[place], geometry, own)]

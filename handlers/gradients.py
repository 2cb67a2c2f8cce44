"""From a detector's part, a target and a layer to the gradients that methods turn into maps.

Every detection's scalar is differentiated with respect to what its head saw: pooled features, or a
window of one feature map. All detections share one backward pass. A layer inside the backbone gets
those gradients pushed on by batched vector-Jacobian products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from handlers.cam.gradient import WINDOW_BUDGET, DenseGradient, LocalGradient, MapGradient
from handlers.cam.pooled import PooledGradient
from handlers.detectors.base import Cells, Detector, Found, Part, RoIs
from handlers.images import Geometry
from handlers.schema import RequestError
from handlers.tap import Layer, Tap, masked
from handlers.targets.registry import Outputs

Scalars = Callable[[Outputs], Sequence[Tensor]]


@dataclass(frozen=True)
class Piece:
    """Detections whose gradients lie on one activation.

    places: int64 [n], which detections. gradients: for each scalar of the target that of all n.
    geometries: for each detection, where the activation's grid lies on the picture.
    """

    places: Tensor
    gradients: list[MapGradient]
    geometries: list[Geometry]


@dataclass(frozen=True)
class Where:
    """A layer: its name, its module where it is one, and whether that belongs to the part's head
    rather than to the backbone."""

    name: str
    module: Layer | None = None
    head: bool = False


@dataclass(frozen=True)
class Scene:
    """One picture as its detector saw it. rerun: computes its feature maps [1, C, h, w] once more,
    differentiable."""

    detector: Detector
    found: Found
    rerun: Callable[[], list[Tensor]]

    @property
    def maps(self) -> list[Tensor]:
        """The feature maps, finest first, [1, C, h, w] each."""
        return self.found.maps

    def grid(self, activation: Tensor) -> Geometry:
        """The geometry of an activation [..., h, w] of the whole picture."""
        height, width = activation.shape[-2:]
        return self.detector.on_grid(self.found.frame, height, width)


@dataclass(frozen=True)
class Question:
    """What is differentiated: `scalars` of a part's outputs. layer: with respect to a module's
    output, None for what the part reads."""

    scene: Scene
    part: Part
    scalars: Scalars
    layer: Layer | None = None


def emitting(question: Question) -> Iterator[Piece]:
    """On the feature map that emitted each detection."""
    question = replace(question, layer=None)
    part = question.part
    if isinstance(part, RoIs):
        yield from _from_pooled(question, part)
        return
    assert isinstance(part, Cells)  # queries have a file of their own
    for level in part.level.unique().tolist():
        yield from _from_cells(question, part, level)


def _from_pooled(question: Question, part: RoIs) -> Iterator[Piece]:
    scene = question.scene
    leaf = part.pooled.detach().requires_grad_()
    gradients = _row_gradients(leaf, part.head, question)
    for level in part.level.unique().tolist():
        places = torch.where(part.level == level)[0]
        rows, columns = part.matrices(places, level)
        activation = scene.maps[level][0]
        yield Piece(
            places,
            [
                PooledGradient(activation, part.pooled[places], each[places], rows, columns)
                for each in gradients
            ],
            [scene.grid(activation)] * len(places),
        )


@torch.enable_grad()
def _row_gradients(
    leaf: Tensor,
    head: Callable[[Tensor], Outputs],
    question: Question,
    size: Sequence[int] | None = None,
) -> list[Tensor]:
    """d scalar_n / d leaf_n for every scalar, where row n of the outputs depends on row n of the
    leaf alone: the gradient of the sum over rows is all rows' gradients at once."""
    found, leaf = _tapped(lambda: question.scalars(head(leaf)), leaf, question.layer, size)
    return [
        torch.autograd.grad(each.sum(), leaf, retain_graph=number < len(found))[0]
        if each.requires_grad
        else torch.zeros_like(leaf)
        for number, each in enumerate(found, start=1)
    ]


def _tapped(
    run: Callable[[], Sequence[Tensor]],
    leaf: Tensor,
    layer: Layer | None,
    size: Sequence[int] | None,
) -> tuple[Sequence[Tensor], Tensor]:
    """The scalars that `run` gives, and what to differentiate them by: the output of `layer` (of
    that size, if one is given), or without one `leaf`."""
    if layer is None:
        return run(), leaf
    with Tap(layer, size) as tap:
        found = run()
    return found, tap.map(found)


def roi(question: Question) -> Iterator[Piece]:
    """On each detection's own pooled features, drawn into the box they were pooled from."""
    part = question.part
    if not isinstance(part, RoIs):
        raise RequestError("layer", "roi", "emitting, pyramid or a module: nothing is pooled here")
    leaf = part.pooled.detach().requires_grad_()
    gradients = _row_gradients(leaf, part.head, question)
    yield from _into_boxes(question.scene, part, part.pooled, gradients)


def _into_boxes(
    scene: Scene, part: RoIs, activation: Tensor, gradients: list[Tensor]
) -> Iterator[Piece]:
    for place, (frame, level) in enumerate(
        zip(part.frames.tolist(), part.level.tolist(), strict=True)
    ):
        yield Piece(
            torch.tensor([place], device=activation.device),
            [DenseGradient(activation[place], each[place : place + 1]) for each in gradients],
            [scene.found.frame.crop(frame, least=part.least(level))],
        )


def head_layer(question: Question, layer: Layer) -> Iterator[Piece]:
    """On the output of a module of the part's head."""
    question = replace(question, layer=layer)
    scene, part = question.scene, question.part
    if isinstance(part, RoIs):
        with torch.no_grad(), Tap(layer) as tap:
            part.head(part.pooled)
        gradients = _row_gradients(part.pooled, part.head, question)
        yield from _into_boxes(scene, part, tap.map(), gradients)
        return
    assert isinstance(part, Cells)  # queries have a file of their own
    for level in part.level.unique().tolist():
        activation = _activation(question, part, level)
        if activation is not None:
            yield from _from_cells(question, part, level, activation)
            continue
        # SSD has a head for each map: this module has no part in the scores of other maps.
        others = (_activation(question, part, other) for other in range(len(scene.maps)))
        activation = next((each for each in others if each is not None), None)
        if activation is None:
            raise Tap(layer).error("does not run for this target")
        places = torch.where(part.level == level)[0]
        nothing = activation.new_zeros(1).expand(len(places), *activation.shape)
        number = len(question.scalars(part.outputs(scene.maps)))
        yield Piece(
            places,
            [DenseGradient(activation, nothing)] * number,
            [scene.grid(activation)] * len(places),
        )


def _activation(question: Question, part: Cells, level: int) -> Tensor | None:
    """What the question's layer makes of a level's map, [C, h, w]; None if it takes no part."""
    assert question.layer is not None  # head_layer has set it
    maps = question.scene.maps[level]
    with torch.no_grad(), Tap(question.layer, _own_size(part, maps)) as tap:
        part.convolve(maps, level)
    return tap.map()[0] if tap.caught else None


def _own_size(part: Cells, maps: Tensor) -> Sequence[int] | None:
    """Tells what a head makes of one level from what it makes of others at the same time."""
    return maps.shape[-2:] if part.convolve_all else None


def _from_cells(
    question: Question, part: Cells, level: int, activation: Tensor | None = None
) -> Iterator[Piece]:
    """On one feature map; or on `activation` [C, h, w], what the question's layer makes of it."""
    maps = question.scene.maps[level]
    places = torch.where(part.level == level)[0]
    reach = part.reach(level)
    if reach is not None and (2 * reach + 1) ** 2 < maps.shape[-2] * maps.shape[-1]:
        activation = maps[0] if activation is None else activation
        yield from _from_windows(question, part, level, activation)
        return
    with torch.enable_grad():
        leaf = maps.detach().requires_grad_(question.layer is None)

        def run() -> Sequence[Tensor]:
            return question.scalars(part.outputs_at(leaf, level, places))

        size = _own_size(part, maps)
        found, leaf_of_layer = _tapped(run, leaf, question.layer, size)
    geometry = question.scene.grid(leaf_of_layer)
    for own in in_chunks(len(places), leaf_of_layer.numel() * len(found)):
        gradients = [_jacobian(each[own], leaf_of_layer)[:, 0] for each in found]
        yield Piece(
            places[own],
            [DenseGradient(leaf_of_layer.detach()[0], each) for each in gradients],
            [geometry] * len(own),
        )


def _from_windows(
    question: Question, part: Cells, level: int, activation: Tensor
) -> Iterator[Piece]:
    """The same from the windows that the head sees of the map: as a batch, once forward and back.

    Zero padding is part of what the head sees at the map's edge, so cells off the map are zeroed
    again before every convolution.
    """
    maps = question.scene.maps[level]
    places = torch.where(part.level == level)[0]
    reach = part.reach(level) or 0
    height, width = maps.shape[-2:]
    side = 2 * reach + 1
    padded = F.pad(maps[0], (reach, reach, reach, reach))
    inside = F.pad(maps.new_ones(1, height, width), (reach, reach, reach, reach))
    offset = torch.arange(side, device=maps.device)
    for own in in_chunks(len(places), len(maps[0]) * side * side * 4):
        row, column = part.row[places[own]], part.column[places[own]]
        y = (row[:, None] + offset)[:, :, None].expand(-1, -1, side)
        x = (column[:, None] + offset)[:, None, :].expand(-1, side, -1)
        windows = padded[:, y, x].transpose(0, 1).contiguous()
        mask = inside[:, y, x].transpose(0, 1)
        centre = torch.full_like(row, reach)
        where = (torch.arange(len(own), device=maps.device), centre, centre)

        def head(windows: Tensor, places: Tensor = places[own], where: object = where) -> Outputs:
            return part.read(part.convolve(windows, level), places, where)  # type: ignore[arg-type]

        with masked(part.convolutions(level), mask):
            windows.requires_grad_(question.layer is None)
            size = _own_size(part, windows)
            gradients = _row_gradients(windows, head, question, size)
        yield Piece(
            places[own],
            [
                LocalGradient(activation, each * mask, row - reach, column - reach)
                for each in gradients
            ],
            [question.scene.grid(activation)] * len(own),
        )


def backbone_layer(question: Question, layer: Layer) -> Iterator[Piece]:
    """On the output of a module of the backbone."""
    scene, part = question.scene, question.part
    with torch.enable_grad(), Tap(layer) as tap:
        maps = scene.rerun()
    leaf = tap.map(maps)
    largest = max(leaf.numel(), *(each.numel() for each in maps))
    geometry = scene.grid(leaf)
    for piece in emitting(question):
        level = int(part.level[piece.places[0]])
        for own in in_chunks(len(piece.places), 4 * largest):
            pushed = [_push(maps[level], leaf, gradient.dense(own)) for gradient in piece.gradients]
            yield Piece(
                piece.places[own],
                [DenseGradient(leaf.detach()[0].float(), each) for each in pushed],
                [geometry] * len(own),
            )


def _push(output: Tensor, leaf: Tensor, gradients: Tensor) -> Tensor:
    """From d score_n / d output [n, C, h, w] to d score_n / d leaf [n, C', h', w']."""
    if not output.requires_grad:  # this map does not depend on the leaf
        return leaf.new_zeros(len(gradients), *leaf.shape[1:])
    (found,) = torch.autograd.grad(
        output,
        leaf,
        gradients[:, None].to(output.dtype),
        is_grads_batched=True,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return found[:, 0].float()  # at precision bf16 the backbone's layers are bfloat16


def pyramid(question: Question) -> Iterator[Piece]:
    """On all feature maps together: absolute values, resized to the coarsest, side by side as
    channels, as pytorch-grad-cam's tutorial on Faster R-CNN takes them.

    The gradient with respect to |A| is g sign(A), and it is resized like |A|.
    """
    scene, part = question.scene, question.part
    activation = torch.cat([coarsest(each.abs(), scene.maps) for each in scene.maps], 1)[0]
    channels = [each.shape[1] for each in scene.maps]
    for piece in emitting(question):
        level = int(part.level[piece.places[0]])
        sign = scene.maps[level].sign()
        for own in in_chunks(len(piece.places), 2 * scene.maps[level].numel() + activation.numel()):
            gradients: list[MapGradient] = []
            for each in piece.gradients:
                gradient = activation.new_zeros(len(own), *activation.shape)
                first = sum(channels[:level])
                gradient[:, first : first + channels[level]] = coarsest(
                    each.dense(own) * sign, scene.maps
                )
                gradients.append(DenseGradient(activation, gradient))
            yield Piece(piece.places[own], gradients, [scene.found.frame] * len(own))


def coarsest(maps: Tensor, levels: Sequence[Tensor]) -> Tensor:
    """Maps [B, C, h, w] resized to the size of the last of `levels`, bilinear."""
    return F.interpolate(maps, levels[-1].shape[-2:], mode="bilinear", align_corners=False)


def _jacobian(scalars: Tensor, leaf: Tensor) -> Tensor:
    """d scalars_n / d leaf: [n, *leaf.shape], in one batched vector-Jacobian product."""
    if not scalars.requires_grad:
        return leaf.new_zeros(len(scalars), *leaf.shape)
    eye = torch.eye(len(scalars), device=scalars.device, dtype=scalars.dtype)
    (found,) = torch.autograd.grad(
        scalars,
        leaf,
        eye,
        is_grads_batched=True,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return found


def in_chunks(number: int, floats: int) -> list[Tensor]:
    """0 ... number - 1 in runs that hold at most WINDOW_BUDGET floats, of `floats` each, or one."""
    return list(torch.arange(number).split(max(1, WINDOW_BUDGET // floats)))

"""From a detector's part, a target and a layer to the gradients that methods turn into maps.

Every detection's scalar is differentiated with respect to what its head saw: pooled features, or a
window of one feature map. All detections share one backward pass. A layer inside the backbone gets
those gradients pushed on by batched vector-Jacobian products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from handlers.cam.gradient import DenseGradient, MapGradient
from handlers.cam.pooled import PooledGradient
from handlers.detectors.base import Cells, RoIs
from handlers.evidence.cells import from_cells, from_levels, shown_for
from handlers.evidence.scene import Piece, Question, Scene, in_chunks, products, row_gradients
from handlers.fields import RequestError
from handlers.tap import Layer, Tap


def emitting(question: Question) -> Iterator[Piece]:
    """On the feature map that emitted each detection."""
    question = replace(question, layer=None)
    part = question.part
    if isinstance(part, RoIs):
        yield from _from_pooled(question, part)
        return
    assert isinstance(part, Cells)  # queries have a file of their own
    yield from from_levels(question, part)


def _from_pooled(question: Question, part: RoIs) -> Iterator[Piece]:
    scene = question.scene
    leaf = part.pooled.detach().requires_grad_()
    gradients = row_gradients(leaf, part.head, question)
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


def roi(question: Question) -> Iterator[Piece]:
    """On each detection's own pooled features, drawn into the box they were pooled from."""
    part = question.part
    if not isinstance(part, RoIs):
        raise RequestError("layer", "roi", "emitting, pyramid or a module: nothing is pooled here")
    leaf = part.pooled.detach().requires_grad_()
    gradients = row_gradients(leaf, part.head, question)
    yield from _into_boxes(question.scene, part, part.pooled, gradients)


def _into_boxes(
    scene: Scene, part: RoIs, activation: Tensor, gradients: list[Tensor]
) -> Iterator[Piece]:
    for place, grid in enumerate(scene.box_grids(part)):
        yield Piece(
            torch.tensor([place], device=activation.device),
            [DenseGradient(activation[place], each[place : place + 1]) for each in gradients],
            [grid],
        )


def head_layer(question: Question, layer: Layer) -> Iterator[Piece]:
    """On the output of a module of the part's head."""
    question = replace(question, layer=layer)
    scene, part = question.scene, question.part
    if isinstance(part, RoIs):
        with torch.no_grad(), Tap(layer) as tap:
            part.head(part.pooled)
        gradients = row_gradients(part.pooled, part.head, question)
        yield from _into_boxes(scene, part, tap.map(), gradients)
        return
    assert isinstance(part, Cells)  # queries have a file of their own
    for level in part.level.unique().tolist():
        shown = shown_for(question, part, level)
        if shown.depends:
            yield from from_cells(question, part, level, shown)
            continue
        places = torch.where(part.level == level)[0]
        nothing = shown.activation.new_zeros(1).expand(len(places), *shown.activation.shape)
        number = len(question.scalars(part.outputs(scene.maps)))
        yield Piece(
            places,
            [DenseGradient(shown.activation, nothing)] * number,
            [scene.grid(shown.activation)] * len(places),
        )


def backbone_layer(question: Question, layer: Layer) -> Iterator[Piece]:
    """On the output of a module of the backbone."""
    scene, part = question.scene, question.part
    with torch.enable_grad(), Tap(layer) as tap:
        maps = scene.rerun()
    leaf = tap.map(None if scene.detector.no_backbone_gradient else maps)
    largest = max(leaf.numel(), *(each.numel() for each in maps))
    geometry = scene.grid(leaf)
    for piece in emitting(question):
        level = int(part.level[piece.places[0]])
        for own in in_chunks(len(piece.places), 4 * largest):
            pushed = [_push(maps[level], leaf, gradient.dense(own)) for gradient in piece.evidence]
            yield Piece(
                piece.places[own],
                [DenseGradient(leaf.detach()[0].float(), each) for each in pushed],
                [geometry] * len(own),
            )


def _push(output: Tensor, leaf: Tensor, gradients: Tensor) -> Tensor:
    """From d score_n / d output [n, C, h, w] to d score_n / d leaf [n, C', h', w']."""
    (found,) = products(output, [leaf], gradients[:, None].to(output.dtype))
    return found[:, 0].float()  # at precision bf16 the backbone's layers are bfloat16


def pyramid(question: Question) -> Iterator[Piece]:
    """On all feature maps together: absolute values, resized to the coarsest, side by side as
    channels, as pytorch-grad-cam's tutorial on Faster R-CNN takes them.

    The gradient with respect to |A| is g sign(A), and it is resized like |A|.
    """
    scene, part = question.scene, question.part
    activation = side_by_side([each.abs() for each in scene.maps])[0]
    channels = [each.shape[1] for each in scene.maps]
    for piece in emitting(question):
        level = int(part.level[piece.places[0]])
        sign = scene.maps[level].sign()
        for own in in_chunks(len(piece.places), 2 * scene.maps[level].numel() + activation.numel()):
            gradients: list[MapGradient] = []
            for each in piece.evidence:
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


def side_by_side(maps: Sequence[Tensor]) -> Tensor:
    """Maps [B, C, h, w] of all levels as the channels of one of the coarsest's size."""
    return torch.cat([coarsest(each, maps) for each in maps], 1)

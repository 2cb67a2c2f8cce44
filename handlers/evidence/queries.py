"""Gradients of outputs that are read from all feature maps together: a decoder's queries.

All detections share the forward pass, and a few of them each batched vector-Jacobian product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from handlers.cam.gradient import DenseGradient
from handlers.evidence.gradients import side_by_side
from handlers.evidence.scene import Piece, Question, Where, in_chunks, jacobian
from handlers.layers import PYRAMID
from handlers.tap import Tap


def pieces(question: Question, where: Where) -> Iterator[list[Piece]]:
    """For a few detections at a time their gradients on every map that is looked at: on all that
    the queries read, on these as one, or on the output of a module."""
    scene = question.scene
    leaves, scalars = _differentiable(question, where)
    maps = [each.detach()[0].float() for each in leaves]
    for own in in_chunks(len(question.part.level), 2 * sum(each.numel() for each in leaves)):
        found = [
            [gradient[:, 0].float() for gradient in jacobian(each[own], leaves)] for each in scalars
        ]
        if where.name == PYRAMID:
            yield [_as_one(question, leaves, own, found)]
            continue
        yield [
            Piece(
                own,
                [DenseGradient(activation, each[place]) for each in found],
                [scene.grid(activation)] * len(own),
            )
            for place, activation in enumerate(maps)
        ]


@torch.enable_grad()
def _differentiable(question: Question, where: Where) -> tuple[list[Tensor], Sequence[Tensor]]:
    """The maps to differentiate by, [1, C, h, w], and the scalars [N] that hang from them."""
    scene, part = question.scene, question.part
    if where.module is None:
        leaves = [each.detach().requires_grad_() for each in scene.maps]
        found = question.scalars(part.outputs(leaves))
        question.check(found)
        return leaves, found
    if where.head:
        with Tap(where.module) as tap:
            scalars = question.scalars(part.outputs([each.detach() for each in scene.maps]))
        return [tap.map(scalars)], scalars
    with Tap(where.module) as tap:
        maps = scene.rerun()
    return [tap.map(maps)], question.scalars(part.outputs(maps))


def _as_one(
    question: Question, leaves: Sequence[Tensor], own: Tensor, found: Sequence[list[Tensor]]
) -> Piece:
    """On the absolute values of all maps, resized to the coarsest, side by side as channels."""
    maps = [each.detach() for each in leaves]
    activation = side_by_side([each.abs() for each in maps])[0]
    gradients = [
        side_by_side([g * level.sign() for g, level in zip(each, maps, strict=True)])
        for each in found
    ]
    return Piece(
        own,
        [DenseGradient(activation, each) for each in gradients],
        [question.scene.found.frame] * len(own),
    )

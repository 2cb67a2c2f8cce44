"""Gradients of outputs that are read from all feature maps together: a decoder's queries.

All detections share the forward pass, and a few of them each batched vector-Jacobian product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from handlers.cam.gradient import DenseGradient
from handlers.gradients import coarsest
from handlers.layers import PYRAMID
from handlers.scene import Piece, Question, Where, in_chunks
from handlers.tap import Tap


def pieces(question: Question, where: Where) -> Iterator[list[Piece]]:
    """For a few detections at a time their gradients on every map that is looked at: on all that
    the queries read, on these as one, or on the output of a module."""
    scene = question.scene
    leaves, scalars = _differentiable(question, where)
    maps = [each.detach()[0].float() for each in leaves]
    for own in in_chunks(len(question.part.level), 2 * sum(each.numel() for each in leaves)):
        found = [_jacobian(each[own], leaves) for each in scalars]
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
        return leaves, question.scalars(part.outputs(leaves))
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
    activation = torch.cat([coarsest(each.abs(), maps) for each in maps], 1)[0]
    gradients = [
        torch.cat(
            [
                coarsest(gradient * level.sign(), maps)
                for gradient, level in zip(each, maps, strict=True)
            ],
            1,
        )
        for each in found
    ]
    return Piece(
        own,
        [DenseGradient(activation, each) for each in gradients],
        [question.scene.found.frame] * len(own),
    )


def _jacobian(scalars: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """d scalars_n / d leaf for each leaf [1, C, h, w]: [n, C, h, w] each."""
    if not scalars.requires_grad:
        return [each.new_zeros(len(scalars), *each.shape[1:]) for each in leaves]
    eye = torch.eye(len(scalars), device=scalars.device, dtype=scalars.dtype)
    try:
        found = _products(scalars, leaves, eye, batched=True)
    except RuntimeError:
        # An operation that cannot be batched, such as a kernel of its own; one by one it can, and
        # another error is met again.
        rows = [_products(scalars, leaves, each, batched=False) for each in eye]
        found = [torch.stack(each) for each in zip(*rows, strict=True)]
    return [each[:, 0].float() for each in found]


def _products(
    scalars: Tensor, leaves: Sequence[Tensor], vectors: Tensor, batched: bool
) -> list[Tensor]:
    return list(
        torch.autograd.grad(
            scalars,
            leaves,
            vectors,
            is_grads_batched=batched,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    )

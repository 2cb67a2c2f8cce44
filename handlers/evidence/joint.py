"""Gradients of scalars that belong to several boxes, or to the picture: sums, and functions of the
caller's own. They may reach several feature maps at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.cam.gradient import DenseGradient
from handlers.detectors.base import AllParts, Cells, Part, Queries
from handlers.evidence.activations import calls_by_level
from handlers.evidence.gradients import side_by_side
from handlers.evidence.scene import Scene, Where
from handlers.fields import RequestError
from handlers.images import Geometry
from handlers.tap import Layer, Tap, check_gradient
from handlers.targets.registry import Outputs
from handlers.time_limit import on_time

# Of each explanation the scalars whose maps' maximum it is, each a tensor of one element.
JointScalars = Callable[[Outputs], Sequence[Sequence[Tensor]]]


@dataclass(frozen=True)
class OnMap:
    """The gradient of one scalar on one activation, and where that lies."""

    gradient: DenseGradient
    geometry: Geometry


Place = Callable[[Scene, Sequence[Tensor], Sequence[Tensor]], list[OnMap]]


@torch.enable_grad()
def joint(
    scene: Scene,
    part: Part | AllParts,
    scalars: JointScalars,
    where: Where,
    gradient: bool = True,
) -> list[list[list[OnMap]]]:
    """For each explanation and each of its scalars the gradients on every map that it reaches.

    gradient: there has to be one. Raises NoGradientError if there is none then, RequestError for a
    layer of which each box has its own.
    """
    maps = [each.detach().requires_grad_(not where.head) for each in scene.maps]
    if where.head or where.name == "roi":
        if where.module is None or not isinstance(part, (Cells, Queries)):
            raise RequestError("layer", where.name, "a layer that boxes share")
        with Tap(where.module) as tap:
            explained = scalars(part.outputs(maps))
        if isinstance(part, Queries):
            leaves = [tap.map()]
        else:
            for level, each in enumerate(scene.maps):
                if not tap.caught:  # of SSD's heads that of another map: its gradient is zero
                    with Tap(where.module) as tap:
                        part.convolve(each, level)
            tap.map()
            calls = calls_by_level(part, scene.maps, len(tap.caught))
            leaves = [tap.caught[call] for call in calls]
    else:
        explained = scalars(part.outputs(maps))
        if gradient:
            check_gradient(value for values in explained for value in values)
        leaves = maps
    place: Place = _on_leaves
    if where.name == "pyramid":
        place = _on_pyramid
    elif where.module is not None and not where.head:
        place = _pusher(scene, where.module)
    return [
        [place(scene, leaves, _gradients(value, leaves)) for value in values]
        for values in on_time(explained, len(explained), lambda _: 1)
    ]


def _gradients(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(
        torch.autograd.grad(
            value.sum(), leaves, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    )


def _on_leaves(scene: Scene, leaves: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[OnMap]:
    """Those that are not all zero; the finest, if they all are."""
    found = [
        OnMap(DenseGradient(leaf.detach()[0], gradient), scene.grid(leaf))
        for leaf, gradient in zip(leaves, gradients, strict=True)
    ]
    return [each for each in found if bool(each.gradient.gradient.any())] or found[:1]


def _on_pyramid(scene: Scene, leaves: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[OnMap]:
    activation = side_by_side([leaf.detach().abs() for leaf in leaves])
    gradient = side_by_side(
        [each * leaf.detach().sign() for leaf, each in zip(leaves, gradients, strict=True)]
    )
    return [OnMap(DenseGradient(activation[0], gradient), scene.found.frame)]


def _pusher(scene: Scene, module: Layer) -> Place:
    with Tap(module) as tap:
        maps = scene.rerun()
    leaf = tap.map(maps)
    reached = [place for place, each in enumerate(maps) if each.requires_grad]

    def push(scene: Scene, _: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[OnMap]:
        (found,) = torch.autograd.grad(
            [maps[place] for place in reached],
            leaf,
            [gradients[place] for place in reached],
            retain_graph=True,
        )
        gradient = DenseGradient(leaf.detach()[0].float(), found.float())
        return [OnMap(gradient, scene.grid(leaf))]

    return push

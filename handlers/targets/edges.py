"""Where the box is: its edges, its size, and both with its class."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from handlers.targets.registry import TARGETS, Outputs, Target

EDGES = ("x1", "y1", "x2", "y2")


def _edge(place: int) -> Callable[[Outputs, str], list[Tensor]]:
    return lambda outputs, _: [outputs["boxes"][:, place]]


def _size(place: int) -> Callable[[Outputs, str], list[Tensor]]:
    return lambda outputs, _: [outputs["boxes"][:, place + 2] - outputs["boxes"][:, place]]


def _box(outputs: Outputs, _: str) -> list[Tensor]:
    # Not the IoU of the box with itself, which has no gradient.
    return list(outputs["boxes"].unbind(1))


def _combined(outputs: Outputs, argument: str) -> list[Tensor]:
    """ODAM's combined map (Zhao and Chan, ICLR 2023): the class and all four edges."""
    return [outputs.own("logits"), *_box(outputs, argument)]


# An edge's gradient is zero where the box was clipped at the picture's border.
for _place, _name in enumerate(EDGES):
    TARGETS.register(_name)(Target(("boxes",), _edge(_place)))
TARGETS.register("width")(Target(("boxes",), _size(0)))
TARGETS.register("height")(Target(("boxes",), _size(1)))
TARGETS.register("box")(Target(("boxes",), _box))
TARGETS.register("combined")(Target(("logits", "boxes"), _combined))

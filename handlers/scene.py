"""What is explained of a picture, and the steps of differentiation that its parts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.cam.gradient import WINDOW_BUDGET, MapGradient
from handlers.detectors.base import Detector, Found, Part
from handlers.images import Geometry
from handlers.tap import Layer, Tap
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


@torch.enable_grad()
def row_gradients(
    leaf: Tensor,
    head: Callable[[Tensor], Outputs],
    question: Question,
    call: int | None = None,
) -> list[Tensor]:
    """d scalar_n / d leaf_n for every scalar, where row n of the outputs depends on row n of the
    leaf alone: the gradient of the sum over rows is all rows' gradients at once."""
    found, leaf = tapped(lambda: question.scalars(head(leaf)), leaf, question.layer, call)
    return [
        torch.autograd.grad(each.sum(), leaf, retain_graph=number < len(found))[0]
        if each.requires_grad
        else torch.zeros_like(leaf)
        for number, each in enumerate(found, start=1)
    ]


def tapped(
    run: Callable[[], Sequence[Tensor]],
    leaf: Tensor,
    layer: Layer | None,
    call: int | None,
) -> tuple[Sequence[Tensor], Tensor]:
    """The scalars that `run` gives, and what to differentiate them by: the output of `layer` (at
    one of its calls, None for the last), or without one `leaf`."""
    if layer is None:
        return run(), leaf
    with Tap(layer, call) as tap:
        found = run()
    return found, tap.map(found)


def jacobian(scalars: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """d scalars_n / d leaf for each leaf: [n, *leaf.shape] each."""
    return products(
        scalars, leaves, torch.eye(len(scalars), device=scalars.device, dtype=scalars.dtype)
    )


def products(output: Tensor, leaves: Sequence[Tensor], vectors: Tensor) -> list[Tensor]:
    """Vector-Jacobian products of vectors [n, *output.shape] by each leaf: [n, *leaf.shape] each,
    all at once; zero where `output` does not depend on a leaf."""
    if not output.requires_grad:
        return [each.new_zeros(len(vectors), *each.shape) for each in leaves]
    try:
        return _products(output, leaves, vectors, batched=True)
    except RuntimeError:
        # An operation that cannot be batched, such as a kernel of its own; one by one it can, and
        # another error is met again.
        rows = [_products(output, leaves, each, batched=False) for each in vectors]
        return [torch.stack(each) for each in zip(*rows, strict=True)]


def _products(
    output: Tensor, leaves: Sequence[Tensor], vectors: Tensor, batched: bool
) -> list[Tensor]:
    return list(
        torch.autograd.grad(
            output,
            leaves,
            vectors,
            is_grads_batched=batched,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    )


def in_chunks(number: int, floats: int) -> list[Tensor]:
    """0 ... number - 1 in runs that hold at most WINDOW_BUDGET floats, of `floats` each, or one."""
    return list(torch.arange(number).split(max(1, WINDOW_BUDGET // floats)))

"""What is explained of a picture, and the steps of differentiation that its parts share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from handlers.cam.gradient import WINDOW_BUDGET
from handlers.detectors.base import AllParts, Detector, Entries, Found, Part, RoIs
from handlers.images import Geometry
from handlers.memory import Footprint
from handlers.network import Network, with_pixels
from handlers.tap import Layer, Tap, check_gradient
from handlers.targets.registry import Outputs
from handlers.time_limit import on_time

Scalars = Callable[[Outputs], Sequence[Tensor]]


@dataclass(frozen=True)
class Piece:
    """Detections whose evidence lies on one grid.

    places: int64 [n], which detections. evidence: for each scalar of the target that of all n, as
    the method takes it (`handlers.cam.registry.Evidence`).
    geometries: for each detection, where the grid lies on the picture.
    """

    places: Tensor
    evidence: Sequence[Any]
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
    """One picture as its detector saw it.

    batch_size: how many changed pictures a caller wants to run at a time, None for what suits.
    footprint: what one of them takes.
    """

    network: Network
    found: Found
    batch_size: int | None = None
    footprint: Footprint = field(default_factory=Footprint)

    @property
    def detector(self) -> Detector:
        """The detector."""
        return self.network.detector

    @property
    def pixels(self) -> Tensor:
        """The network input [1, 3, h, w]."""
        return self.found.features.inputs.tensors

    @property
    def maps(self) -> list[Tensor]:
        """The feature maps, finest first, [1, C, h, w] each."""
        return self.found.maps

    def rerun(self) -> list[Tensor]:
        """The feature maps [1, C, h, w] once more, differentiable."""
        return self.maps_of(self.pixels)

    def maps_of(self, pixels: Tensor) -> list[Tensor]:
        """The feature maps [B, C, h, w] of other pixels [B, 3, h, w] of the network input."""
        inputs = with_pixels(self.found.features.inputs, pixels)
        return [*self.network.features(inputs).maps.values()]

    def found_in(self, pixels: Tensor) -> list[Found]:
        """What is found where the network input has other pixels [B, 3, h, w]."""
        return self.network.find(with_pixels(self.found.features.inputs, pixels))

    def grid(self, activation: Tensor) -> Geometry:
        """The geometry of an activation [..., h, w] of the whole picture."""
        height, width = activation.shape[-2:]
        return self.detector.on_grid(self.found.frame, height, width)

    def box_grids(self, part: RoIs) -> list[Geometry]:
        """For each of N detections the geometry of a grid over what was pooled for it."""
        pairs = zip(part.frames.tolist(), part.level.tolist(), strict=True)
        return [self.found.frame.crop(box, least=part.least(level)) for box, level in pairs]


@dataclass(frozen=True)
class Question:
    """What is asked of a picture: how `scalars` of a part's outputs come about.

    scalars: each [N], of N explanations. chosen: the boxes that are explained.
    layer: the module whose output is looked at, None for what the part reads.
    joint: an explanation may depend on several boxes, so that there need not be one for each.
    gradient: the method looks at one, so that there has to be one.
    target: the name of what `scalars` are, "" if they are nothing that has one.
    """

    scene: Scene
    part: Part | AllParts
    scalars: Scalars
    chosen: Entries
    layer: Layer | None = None
    joint: bool = False
    gradient: bool = True
    target: str = ""

    def check(self, scalars: Sequence[Tensor]) -> None:
        """Raises NoGradientError if the method wants a gradient and no scalar has one."""
        if self.gradient:
            check_gradient(scalars)


@torch.enable_grad()
def row_gradients(
    leaf: Tensor,
    head: Callable[[Tensor], Outputs],
    question: Question,
    call: int | None = None,
) -> list[Tensor]:
    """d scalar_n / d leaf_n for every scalar, where row n of the outputs depends on row n of the
    leaf alone: the gradient of the sum over rows is all rows' gradients at once."""
    found, leaf = tapped(lambda: question.scalars(head(leaf)), leaf, question, call)
    return [
        torch.autograd.grad(each.sum(), leaf, retain_graph=number < len(found))[0]
        if each.requires_grad
        else torch.zeros_like(leaf)
        for number, each in enumerate(found, start=1)
    ]


def tapped(
    run: Callable[[], Sequence[Tensor]],
    leaf: Tensor,
    question: Question,
    call: int | None,
) -> tuple[Sequence[Tensor], Tensor]:
    """The scalars that `run` gives, and what to differentiate them by: the output of the question's
    layer (at one of its calls, None for the last), or without one `leaf`. Raises NoGradientError
    where none depends on that."""
    if question.layer is None:
        found = run()
        question.check(found)
        return found, leaf
    with Tap(question.layer, call) as tap:
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


def in_chunks(number: int, floats: int) -> Iterator[Tensor]:
    """0 ... number - 1 in runs that hold at most WINDOW_BUDGET floats, of `floats` each, or one.
    Raises OutOfTimeError where a time limit does not allow for all of them."""
    runs = torch.arange(number).split(max(1, WINDOW_BUDGET // floats)) if number else ()
    return on_time(runs, number)

"""Gradients of the whole network down to its input, one explanation after the other.

The network runs once for all of them. Going back, each keeps only what a method makes of a module's
gradient, so that memory stays at one graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from handlers.cam.gradient import DenseGradient, MapGradient
from handlers.cam.pixels import GuidedGradient, PixelGradient, on_blocks
from handlers.detectors.base import AllParts, Part, RoIs
from handlers.evidence.joint import joint
from handlers.evidence.scene import Piece, Question, Scene, Where
from handlers.guided import guided
from handlers.images import Geometry
from handlers.targets.registry import Outputs

# Takes a bias times its gradient [C, h, w], or [n, ...] where `placed` is false.
Receive = Callable[[Tensor, bool], None]


class Biases:
    """Every call of a module with a bias, between a network's input and what came of it.

    In a backward pass each gives its bias times the gradient of what the call gave. A BatchNorm
    adds b - mean w / sqrt(var + eps); also a frozen one, whose numbers are buffers.
    """

    def __init__(self) -> None:
        self.guides = False
        self._on_picture = True
        self._receive: Receive | None = None

    @contextmanager
    def watched(self, model: nn.Module) -> Iterator[None]:
        """What runs of `model` meanwhile counts."""
        with ExitStack() as stack:
            for module in model.modules():
                bias = added(module)
                if bias is not None:
                    hook = self._hook(bias)
                    stack.callback(module.register_forward_hook(hook).remove)
            yield

    @contextmanager
    def off_picture(self) -> Iterator[None]:
        """What runs meanwhile gives no maps of the whole picture."""
        self._on_picture = False
        try:
            yield
        finally:
            self._on_picture = True

    @contextmanager
    def guiding(self) -> Iterator[None]:
        """Meanwhile backward passes are guided."""
        self.guides = True
        try:
            yield
        finally:
            self.guides = False

    @contextmanager
    def sent_to(self, receive: Receive | None) -> Iterator[None]:
        """Meanwhile a backward pass hands its terms over, each when it comes by."""
        self._receive = receive
        try:
            yield
        finally:
            self._receive = None

    def _hook(self, bias: Tensor) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, arguments: object, output: object) -> None:
            if not isinstance(output, Tensor) or not output.requires_grad:
                return
            axis = _channel_axis(module, output, len(bias))
            if axis is None:
                return
            placed = self._on_picture and output.dim() == 4 and len(output) == 1
            placed = placed and output.numel() > len(bias)  # one cell has no place
            shape = [-1 if each == axis else 1 for each in range(output.dim())]

            def catch(gradient: Tensor) -> None:
                if self._receive is not None:
                    term = gradient.float() * bias.reshape(shape)
                    self._receive(term.movedim(axis, 1)[0] if placed else term, placed)

            # On the output itself, so that an operation in place that follows does no harm.
            output.register_hook(catch)

        return hook


def added(module: nn.Module) -> Tensor | None:
    """What a module adds to each channel [C], float32, None if nothing."""
    if isinstance(module, torch.jit.ScriptModule):
        return None  # these run no hooks
    bias = getattr(module, "bias", None)
    mean, variance = (getattr(module, f"running_{name}", None) for name in ("mean", "var"))
    if isinstance(mean, Tensor) and isinstance(variance, Tensor):
        scale = (variance.float() + getattr(module, "eps", 1e-5)).rsqrt()
        if isinstance(weight := getattr(module, "weight", None), Tensor):
            scale = scale * weight.detach()
        shift = -mean * scale
        return shift + bias.detach() if isinstance(bias, Tensor) else shift
    return bias.detach().float() if isinstance(bias, Tensor) and bias.dim() == 1 else None


def _channel_axis(module: nn.Module, output: Tensor, channels: int) -> int | None:
    """The axis of a module's output along which its channels lie."""
    last = isinstance(module, (nn.Linear, nn.LayerNorm))
    # LayerNorm for pictures, as ConvNeXt has it, is a class of its own.
    first = not last or (type(module) is not nn.LayerNorm and isinstance(module, nn.LayerNorm))
    if first and output.dim() > 1 and output.shape[1] == channels:
        return 1
    return output.dim() - 1 if last and output.shape[-1] == channels else None


@dataclass(frozen=True)
class Graph:
    """A network's run on inputs, to be differentiated.

    leaf: the inputs [1, 3, h, w]. scalars: each [N]. biases: those on the way.
    """

    leaf: Tensor
    scalars: Sequence[Tensor]
    biases: Biases

    def gradient(self, scalar: int, row: int, receive: Receive | None = None) -> Tensor:
        """d scalars[scalar][row] / d leaf: [3, h, w]; `receive` gets the biases' terms."""
        with self.biases.sent_to(receive):
            return self._gradient(scalar, row)

    def guided(self, scalar: int, row: int) -> Tensor:
        """The same [3, h, w], where every nn.ReLU passes back only what is positive."""
        with self.biases.guiding():
            return self._gradient(scalar, row)

    def _gradient(self, scalar: int, row: int) -> Tensor:
        with torch.enable_grad():  # methods run without
            value = self.scalars[scalar][row]
        if not value.requires_grad:
            return torch.zeros_like(self.leaf[0])
        (found,) = torch.autograd.grad(
            value, self.leaf, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return found[0]

    def total(self, scalar: int, row: int) -> float:
        """Input times gradient and all biases times theirs, added up, wherever they are: the scalar
        itself, if the network is piecewise linear."""
        sums: list[Tensor] = []
        gradient = self.gradient(scalar, row, lambda term, placed: sums.append(term.sum()))
        return float((gradient * self.leaf.detach()[0]).sum() + sum(sums))


def graph_of(
    model: nn.Module, inputs: Tensor, run: Callable[[Tensor, Biases], Sequence[Tensor]]
) -> Graph:
    """The scalars that `run` makes of inputs [1, 3, h, w] with `model`."""
    biases, leaf = Biases(), inputs.detach().clone().requires_grad_()
    # A copy, in case the network changes its input in place.
    with torch.enable_grad(), biases.watched(model), guided(model, lambda: biases.guides):
        return Graph(leaf, run(leaf.clone(), biases), biases)


def of_pixels(question: Question) -> Iterator[list[Piece]]:
    """For each explanation its gradient on the network input."""
    for row, pixels in _rows(question):
        yield [_piece(question, row, pixels)]


def of_layer_and_pixels(question: Question, groups: Iterable[list[Piece]]) -> Iterator[list[Piece]]:
    """For each explanation its gradient on a layer, from `groups`, and on the network input."""
    pixels = dict(_rows(question))
    for group in groups:
        for place, row in enumerate(group[0].places.tolist()):
            evidence = [
                GuidedGradient([_one(piece, scalar, place) for piece in group], own)
                for scalar, own in enumerate(pixels[row])
            ]
            yield [_piece(question, row, evidence)]


def _one(piece: Piece, scalar: int, place: int) -> tuple[MapGradient, Geometry]:
    """Of a piece's gradients that of one of its explanations."""
    gradient: MapGradient = piece.evidence[scalar]
    here = torch.tensor([place], device=gradient.gradient.device)
    return DenseGradient(gradient.activation, gradient.dense(here)), piece.geometries[place]


def of_joint_layer_and_pixels(question: Question, where: Where) -> Iterator[list[Piece]]:
    """The same where an explanation may depend on several boxes."""

    def scalars(outputs: Outputs) -> list[list[Tensor]]:
        return [list(each) for each in zip(*question.scalars(outputs), strict=True)]

    layers = joint(question.scene, question.part, scalars, where)
    for row, pixels in _rows(question):
        evidence = [
            GuidedGradient([(each.gradient, each.geometry) for each in maps], own)
            for maps, own in zip(layers[row], pixels, strict=True)
        ]
        yield [_piece(question, row, evidence)]


def _rows(question: Question) -> Iterator[tuple[int, list[PixelGradient]]]:
    """Each explanation, and the gradients of its scalars; all of one run of the network."""
    scene, part = question.scene, question.part

    def run(pixels: Tensor, biases: Biases) -> Sequence[Tensor]:
        return question.scalars(_marked(part, biases).outputs(scene.maps_of(pixels)))

    graph = graph_of(scene.detector.model, scene.pixels, run)
    question.check(graph.scalars)
    for row in range(len(graph.scalars[0])):
        yield (
            row,
            [
                _Row(scene.found.frame, scene, graph, each, row)
                for each in range(len(graph.scalars))
            ],
        )


def _piece(question: Question, row: int, evidence: Sequence[Any]) -> Piece:
    scene = question.scene
    grid = on_blocks(scene.found.frame, *scene.pixels.shape[-2:])
    return Piece(torch.tensor([row]), evidence, [grid])


def _marked(part: Part | AllParts, biases: Biases) -> Part | AllParts:
    """The same part; what of it works on pooled features says so to `biases`."""
    if isinstance(part, AllParts):
        return AllParts([_marked_part(each, biases) for each in part.parts])
    return _marked_part(part, biases)


def _marked_part(part: Part, biases: Biases) -> Part:
    if not isinstance(part, RoIs):
        return part
    head = part.head_at

    def off_picture(pooled: Tensor, places: Tensor) -> Outputs:
        with biases.off_picture():
            return head(pooled, places)

    return replace(part, head_at=off_picture)


@dataclass(frozen=True)
class _Row(PixelGradient):
    """One scalar of one explanation."""

    frame: Geometry
    scene: Scene
    graph: Graph
    scalar: int
    row: int

    def guided(self) -> Tensor:
        return self.graph.guided(self.scalar, self.row)

    def terms(self, function: Callable[[Tensor], Tensor]) -> Iterable[tuple[Tensor, Geometry]]:
        sums: dict[tuple[int, ...], Tensor] = {}

        def receive(term: Tensor, placed: bool) -> None:
            if placed:
                size, heatmap = tuple(term.shape[-2:]), function(term)
                sums[size] = sums[size] + heatmap if size in sums else heatmap

        gradient = self.graph.gradient(self.scalar, self.row, receive)
        yield function(gradient * self.scene.pixels[0]), self.frame
        yield from ((heatmap, self.scene.grid(heatmap)) for heatmap in sums.values())

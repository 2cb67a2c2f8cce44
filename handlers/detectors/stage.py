"""Cutting a classifier in two, at the output of its last convolutional stage."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from handlers.detectors.registry import DetectorError
from handlers.tap import Layer

POOLING = (
    *(nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d),
    *(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Cells:
    """Where the cells of a map lie along a side of the network input: cell i at the middle of pixel
    first + stride * i."""

    stride: int = 1
    first: float = 0.0

    @property
    def shift(self) -> float:
        """By how many pixels a grid that begins at pixel 0 is moved."""
        return (self.stride - 1) / 2 - self.first


@dataclass(frozen=True)
class Stage:
    """Where a network is cut. layer: the module whose output is the feature map. rest: from that
    map [B, C, h, w] to logits [B, K]; it shares the network's modules. cells: where the cells of
    maps lie, by their side."""

    layer: Layer
    rest: nn.Module
    cells: Mapping[int, Cells]

    def tail(self, maps: Tensor) -> Tensor:
        """Logits [B, K] of maps [B, C, h, w]."""
        # A copy, since the rest may begin with an activation in place.
        logits: Tensor = self.rest(maps.clone())
        return logits


def last_stage(model: nn.Module, tensors: Tensor) -> Stage:
    """Cuts a classifier in eval mode at the last module that gives one map of several cells, on
    which alone the logits depend, and that does not merely pool; of modules with the same output at
    the outermost.

    tensors: [1, 3, h, w], network input. Raises DetectorError for a network without such a module,
    or for which the input is too small.
    """
    side = tensors.shape[-1]
    cells = {side: Cells()}
    try:
        for layer, shape in reversed(_unpooled(model, tensors, cells)):
            rest = _rest(model, layer)
            if rest is not None and rest(tensors.new_zeros(shape)).dim() == 2:
                return Stage(layer, rest, cells)
    except fx.proxy.TraceError as error:
        raise DetectorError(
            f"the forward of {type(model).__name__} decides by its pictures, so it cannot be cut"
            f" ({error}); README, 'Add a detector', shows how to write an adapter"
        ) from error
    except RuntimeError as error:
        raise DetectorError(
            f"a {type(model).__name__} cannot take pictures of {side} pixels a side ({error});"
            " build it with a larger size, or give it a transform of a larger crop_size"
        ) from error
    raise DetectorError(
        f"a {type(model).__name__} has no module whose output, one map [B, C, h, w] of several"
        f" cells, determines its logits for pictures of {side} pixels a side; README, 'Add a"
        " detector', shows how to write an adapter"
    )


def _unpooled(
    model: nn.Module, tensors: Tensor, cells: dict[int, Cells]
) -> list[tuple[Layer, tuple[int, ...]]]:
    """Modules that gave a map of several cells which no pooling made, as they finished, and the
    map's shape. Adds where cells lie."""
    found: list[tuple[Layer, tuple[int, ...]]] = []
    pooled: list[Tensor] = []

    def watch(layer: Layer) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: object) -> None:
            if isinstance(module, STRIDED) and isinstance(output, Tensor):
                _place(module, arguments[0].shape[-1], output.shape[-1], cells)
            if not isinstance(output, Tensor) or output.dim() != 4:
                return
            if isinstance(module, POOLING):
                pooled.append(output)
            elif output.shape[-2:].numel() > 1 and not any(output is each for each in pooled):
                found.append((layer, tuple(output.shape)))

        return hook

    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                handle = module.register_forward_hook(watch(Layer(name, module)))
                stack.callback(handle.remove)
        model(tensors)
    return found


def _place(module: Any, given: int, gave: int, cells: dict[int, Cells]) -> None:
    """Adds where the cells of a map of side `gave` lie, which the module made of side `given`.
    Branches that meet again agree, so the first will do."""
    if given not in cells or gave in cells:
        return
    # Square or along the row; modules of other kernels keep the side.
    size, stride, padding, dilation = (
        value[-1] if isinstance(value, tuple) else value
        for value in (
            *(module.kernel_size, module.stride, module.padding),
            getattr(module, "dilation", 1),
        )
    )
    before = cells[given]
    first = before.first + before.stride * (dilation * (size - 1) / 2 - padding)
    cells[gave] = Cells(before.stride * stride, first)


class _Tracer(fx.Tracer):
    """Looks only into the modules that contain `layer`: all others stay whole, so that hooks on
    them and on what is inside of them work."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not self.layer.name.startswith(module_qualified_name + ".")


def _rest(model: nn.Module, layer: Layer) -> nn.Module | None:
    """The network from the layer's output on; None if it depends on more than that."""
    graph = _Tracer(layer).trace(model)
    places = [node for node in graph.nodes if node.target == layer.name]
    if len(places) != 1:  # the module is used several times
        return None
    needed: set[fx.Node] = set()
    waiting = [node for node in graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node.op == "placeholder":
            return None
        if node not in needed:
            needed.add(node)
            waiting += [] if node is places[0] else node.all_input_nodes
    rest = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {places[0]: rest.placeholder("maps")}
    for node in graph.nodes:
        if node in needed and node not in copies:
            copies[node] = rest.node_copy(node, lambda each: copies[each])
    return fx.GraphModule(model, rest)

"""A detection transformer of the transformers library in two halves: pixels to maps, maps to boxes.

Nothing of the library's code is repeated. The stock `forward` always runs: for the first half it is
left once the encoder has spoken, for the second the backbone and the encoder answer with maps that
are there already.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _LeaveError(Exception):
    """Out of the stock forward: what was asked for is there."""


@dataclass(frozen=True)
class Decoded:
    """What the model says of Q queries of one picture.

    logits: [Q, K]. boxes: [Q, 4], middle x, middle y, width and height, as shares of the picture.
    """

    logits: Tensor
    boxes: Tensor


class _Choice(TorchFunctionMode):
    """While open, sees which cells of the maps the model makes its queries of (`torch.topk`), or
    has it choose those that it chose before: equal scores may come in another order."""

    def __init__(self, chosen: Tensor | None) -> None:
        super().__init__()
        self.before = chosen
        self.chosen: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is not torch.topk or self.chosen is not None:
            return found
        self.chosen = found.indices if self.before is None else self.before[None]
        return torch.return_types.topk((found.values, self.chosen))


class Halves:
    """The two halves of one of transformers' `...ForObjectDetection` models."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def encode(self, tensors: Tensor) -> list[Tensor]:
        """What the decoder reads, [B, C, h, w], finest first, of inputs [B, 3, h, w]."""
        core, seen = self.model.model, {}

        def see(module: nn.Module, arguments: Any, output: Any) -> None:
            seen["size"] = output[-1][0].shape[-2:]

        def leave(module: nn.Module, arguments: Any, keywords: Any, output: Any) -> None:
            seen["encoder"] = output[0]
            seen["sizes"] = keywords.get("spatial_shapes_list")
            raise _LeaveError

        with ExitStack() as stack:
            stack.callback(core.backbone.register_forward_hook(see).remove)
            stack.callback(core.encoder.register_forward_hook(leave, with_kwargs=True).remove)
            self._run(tensors)
        if isinstance(seen["encoder"], (list, tuple)):
            return list(seen["encoder"])
        sizes = [tuple(size) for size in seen["sizes"] or [seen["size"]]]
        rows = seen["encoder"].split([height * width for height, width in sizes], 1)
        return [
            each.transpose(1, 2).unflatten(2, size).contiguous()
            for each, size in zip(rows, sizes, strict=True)
        ]

    def choose(self, tensors: Tensor, maps: Sequence[Tensor]) -> Tensor | None:
        """Of each query the cell that it is made of, int64 [Q]: its place among the cells of all
        maps, one after the other. None for a model whose queries are made of none.

        tensors: one picture's inputs [1, 3, h, w]; maps: [1, C, h, w] as `encode` gives them.
        """

        def leave(module: nn.Module, arguments: Any) -> None:
            raise _LeaveError

        handle = self.model.model.decoder.register_forward_pre_hook(leave)
        try:
            with self._with_maps(maps), _Choice(None) as choice:
                self._run(tensors)
        finally:
            handle.remove()
        return None if choice.chosen is None else choice.chosen[0]

    def decode(self, tensors: Tensor, maps: Sequence[Tensor], chosen: Tensor | None) -> Decoded:
        """All queries of one picture, differentiable by `maps`; arguments as for `choose`, and
        `chosen` as it gave them."""
        with self._with_maps(maps), _Choice(chosen):
            found = self._run(tensors)
        return Decoded(found.logits[0], found.pred_boxes[0])

    def _run(self, tensors: Tensor) -> Any:
        try:
            return self.model(pixel_values=tensors, return_dict=True)
        except _LeaveError:
            return None

    @contextmanager
    def _with_maps(self, maps: Sequence[Tensor]) -> Iterator[None]:
        """Backbone and encoder answer with `maps`."""
        core = self.model.model
        # What the backbone gives decides only sizes and masks; the encoder does not look at it.
        channels = core.backbone.intermediate_channel_sizes
        channels = channels if len(maps) >= len(channels) else channels[-len(maps) :]
        stages = [
            (
                each.new_zeros(1).expand(1, number, *each.shape[-2:]),
                each.new_ones(1, *each.shape[-2:], dtype=torch.bool),
            )
            for number, each in zip(channels, maps, strict=False)
        ]
        outputs = importlib.import_module("transformers.modeling_outputs")
        encoded: Any = list(maps)
        if not self._gives_maps:
            encoded = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], 1)
        spoken = outputs.BaseModelOutput(last_hidden_state=encoded)
        with (
            _instead(core.backbone, lambda *_, **__: stages),
            _instead(core.encoder, lambda *_, **__: spoken),
        ):
            yield

    @property
    def _gives_maps(self) -> bool:
        """The encoder gives a list of maps, not rows of cells."""
        return hasattr(self.model.model, "encoder_input_proj")


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """`module` answers with `forward`; afterwards, also after an error, as before."""
    own = vars(module)
    before = own.get("forward")
    own["forward"] = forward
    try:
        yield
    finally:
        own.pop("forward") if before is None else own.update(forward=before)

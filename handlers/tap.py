"""Looking into a network from outside, and leaving it as it was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from handlers.fields import RequestError


class NonFiniteError(ValueError):
    """A weight or an activation is NaN or infinite; the message names the layer."""


class NoGradientError(ValueError):
    """No gradient leads from a target back to what a method looks at."""


def check_gradient(scalars: Iterable[Tensor]) -> None:
    """Raises NoGradientError if no value of a target depends on what it is differentiated by."""
    values = list(scalars)
    if values and not any(each.requires_grad for each in values):
        raise NoGradientError(
            "no gradient leads from the target back to what the method looks at: a part of the"
            " network runs without gradients, or the target is detached from it"
        )


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """`model` in eval mode and without gradients for its parameters; afterwards, also after an
    error, every module's mode and every parameter's requires_grad are what they were."""
    modes = {module: module.training for module in model.modules()}
    wanted = [each for each in model.parameters() if each.requires_grad]
    model.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True)
class Layer:
    """A module of a network, by its name in `named_modules()`."""

    name: str
    module: nn.Module


class Tap:
    """While open, catches what a layer's module gives, and lets a copy go on.

    caught: what each call gave, in order: leaves from which the rest of the network hangs, so that
    gradients flow back to them and no further. The copy protects them from in-place operations
    that follow (a ReLU overwrites what a plain hook has seen).
    call: which of the calls `map` is about, None for the last; a head may run on several maps.
    """

    def __init__(self, layer: Layer, call: int | None = None) -> None:
        self.layer = layer
        self.call = -1 if call is None else call
        self.caught: list[Tensor] = []
        self.other: type | None = None  # the type of an output that is no tensor

    def _catch(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            self.other = type(output)
            return None
        leaf = output.detach().requires_grad_(torch.is_grad_enabled())
        self.caught.append(leaf)
        return leaf.clone()

    def __enter__(self) -> Tap:
        self._handle = self.layer.module.register_forward_hook(self._catch)
        return self

    def map(self, made: Sequence[Tensor] | None = None) -> Tensor:
        """What the module gave [B, C, h, w]; a module that is used several times in a block, as a
        ReLU may be, counts with its last use.

        made: what came of it, if that is to depend on it. Raises RequestError for a layer that
        cannot be explained.
        """
        if not self.caught:
            gave = (
                f"gives a {self.other.__name__}" if self.other else "does not run for this target"
            )
            raise self.error(gave)
        caught = self.caught[self.call]
        if caught.dim() != 4:
            raise self.error(f"gives {list(caught.shape)}")
        if made is not None and not any(each.requires_grad for each in made):
            raise self.error("does not change this target, as far as gradients tell")
        return caught

    def error(self, what: str) -> RequestError:
        """The refusal of this layer, which does `what`."""
        return RequestError(
            "layer",
            f"{self.layer.name}, which {what}",
            "modules between picture and target that give one map [B, C, h, w]; --preview-model"
            " marks them",
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handle.remove()


@contextmanager
def masked(convolutions: Iterable[nn.Module], mask: Tensor) -> Iterator[None]:
    """The convolutions see zero where `mask` [B, 1, h, w] is zero: what zero padding shows them at
    the edge of a map, of which their input is a window. Inputs of other sizes are let through."""

    def apply(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if arguments[0].shape[-2:] != mask.shape[-2:]:
            return None
        return (arguments[0] * mask, *arguments[1:])

    handles = [each.register_forward_pre_hook(apply) for each in convolutions]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """None of the tensors has a NaN or an infinity."""
    # A sum is finite unless one of the values is not, or they overflow together; to look at each
    # takes ten times as long, two hundredths of a detection. A device is asked once, for all.
    several = list(tensors)
    real = (each.abs() if each.is_complex() else each for each in several)
    sums = [each.sum(dtype=torch.float32) for each in real]
    if not sums or bool(torch.stack([each.to(sums[0].device) for each in sums]).isfinite().all()):
        return True
    return all(bool(each.isfinite().all()) for each in several)


def check_weights(model: nn.Module) -> None:
    """Raises NonFiniteError, with its name, for a parameter or buffer that is not finite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not all_finite([tensor]):
            raise NonFiniteError(
                f"the weights of {name} are not all finite (NaN or infinity); load a checkpoint"
                " from before the training diverged"
            )


@contextmanager
def finite(model: nn.Module) -> Iterator[None]:
    """Raises NonFiniteError, with its name, at the first module whose output is not finite."""

    def check(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not all_finite([output]):
                raise NonFiniteError(
                    f"the activation of {name} is not finite (NaN or infinity) for this"
                    " picture; check that layer's weights, or use precision fp32"
                )

        return hook

    handles = [
        module.register_forward_hook(check(name))
        for name, module in model.named_modules()
        if name and not isinstance(module, torch.jit.ScriptModule)  # these run no hooks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

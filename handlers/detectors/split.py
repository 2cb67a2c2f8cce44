"""A network in two: what gives the feature maps, and the head that takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from handlers.detectors.layouts import Layout
from handlers.detectors.registry import DetectorError

SHOWN_MODULES = 12


class _Reached(BaseException):
    """The head was reached; what follows need not run."""


@dataclass(frozen=True)
class _Call:
    """How the network calls its head. pack: its arguments, by position and by keyword, with other
    feature maps in the place of those that it got."""

    maps: list[Tensor]
    pack: Callable[[Sequence[Tensor]], tuple[Sequence[Any], Mapping[str, Any]]]


class SplitNetwork:
    """`features` runs the network up to its head, `head` the head alone on any maps.

    Raises DetectorError if there are no such modules, or the head takes no feature maps.
    """

    def __init__(self, network: nn.Module, layout: Layout) -> None:
        self.network = network
        self.layout = layout
        self.scripted = isinstance(network, torch.jit.ScriptModule)
        if self.scripted and not layout.features:
            raise DetectorError(
                "features: missing; a TorchScript module runs no hooks, so name what gives the"
                " feature maps from the network input, for which head(features(input)) is the"
                f" output: a module or a method. It has {self._names()}"
            )
        self._head = self._found("head", layout.head)
        self._first = self._found("features", layout.features) if layout.features else None
        self._call: _Call | None = None

    def features(self, tensors: Tensor) -> list[Tensor]:
        """The feature maps of network input [B, 3, h, w], as the head takes them."""
        if self._first is not None:
            given = self._scripted(self._first, tensors)
            arguments: tuple[Any, ...] = tuple(given) if self._takes_apart() else (given,)
            self._call = self._understood(arguments, {})
            return _usable(self._call.maps)
        caught: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def catch(module: nn.Module, arguments: Any, keywords: Any) -> None:
            caught.append((arguments, keywords))
            raise _Reached

        assert isinstance(self._head, nn.Module)  # without `features` there are no methods
        handle = self._head.register_forward_pre_hook(catch, with_kwargs=True)
        try:
            self.network(tensors)
        except _Reached:
            pass  # as intended
        finally:
            handle.remove()
        if not caught:
            raise DetectorError(f"head: {self.layout.head} does not run; the network {self._has()}")
        self._call = self._understood(*caught[0])
        return _usable(self._call.maps)

    def head(self, maps: Sequence[Tensor]) -> object:
        """What the head gives for feature maps, level by level."""
        assert self._call is not None  # features has run
        # Copies: heads write into the list they get, and may into the maps.
        arguments, keywords = self._call.pack([each.clone() for each in maps])
        with _training(self.module, self.layout.training_head and not self.scripted):
            return self._scripted(self._head, *arguments, **keywords)

    @property
    def module(self) -> nn.Module | None:
        """The head's module; None if it is a method of a TorchScript module."""
        return self._head if isinstance(self._head, nn.Module) else None

    def _takes_apart(self) -> bool:
        """A TorchScript head may take its maps as so many arguments."""
        method = getattr(self._head, "forward", self._head)
        schema = getattr(method, "schema", None)
        number = len(self.layout.strides)
        return schema is not None and number > 1 and len(schema.arguments) == number + 1

    def _scripted(self, run: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        try:
            return run(*arguments, **keywords)
        except RuntimeError as error:
            if "submodules cannot be called" not in str(error):
                raise
            raise DetectorError(
                "head or features: the parts of a module just traced cannot be called. Save"
                " it, and load that; or trace with torch.jit.trace_module"
            ) from error

    def _understood(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> _Call:
        """The call, if all tensors in it are the feature maps: others would belong to the pictures
        of one batch alone."""
        number = len(self.layout.strides)
        if len(arguments) >= number and _are_maps(arguments[:number]):
            rest = [*arguments[number:]]
            if not _tensors([rest, dict(keywords)]):
                return _Call([*arguments[:number]], lambda maps: ([*maps, *rest], keywords))
        every: list[tuple[int | str, Any]] = [*enumerate(arguments), *keywords.items()]
        for place, value in every:
            others = [each for other, each in enumerate(arguments) if other != place]
            others += [each for name, each in keywords.items() if name != place]
            if isinstance(value, (list, tuple)) and len(value) == number and _are_maps(value):
                if _tensors(others):
                    break
                return _Call([*value], _packer(arguments, keywords, place, type(value) is list))
        got = [_described(each) for each in arguments]
        got += [f"{name}={_described(each)}" for name, each in keywords.items()]
        raise DetectorError(
            f"head: {self.layout.head} takes {', '.join(got) or 'nothing'}; expected {number}"
            f" feature maps [B, C, h, w] and no other tensor, one for each of the strides"
            f" {list(self.layout.strides)}"
        )

    def _found(self, option: str, name: str) -> Callable[..., Any]:
        """The module of that name; or the method, where no hook on it is needed."""
        module = dict(self.network.named_modules()).get(name)
        if module is not None:
            return cast(Callable[..., Any], module)
        method = getattr(self.network, name, None) if self.layout.features else None
        if callable(method):
            return cast(Callable[..., Any], method)
        raise DetectorError(f"{option}: the network has no module {name!r}; it {self._has()}")

    def _has(self) -> str:
        return f"has {self._names()}"

    def _names(self) -> str:
        names = [name for name, _ in self.network.named_modules() if name.count(".") < 2 and name]
        more = f" and {len(names) - SHOWN_MODULES} more" if len(names) > SHOWN_MODULES else ""
        # The head comes last, as a rule.
        return ", ".join(names[-SHOWN_MODULES:]) + more


def _packer(
    arguments: Sequence[Any], keywords: Mapping[str, Any], place: int | str, as_list: bool
) -> Callable[[Sequence[Tensor]], tuple[Sequence[Any], Mapping[str, Any]]]:
    """Puts feature maps, as a list or a tuple, at a place among the arguments."""

    def pack(maps: Sequence[Tensor]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        given = list(maps) if as_list else tuple(maps)
        if isinstance(place, str):
            return arguments, {**keywords, place: given}
        return [*arguments[:place], given, *arguments[place + 1 :]], keywords

    return pack


def _usable(maps: Sequence[Tensor]) -> list[Tensor]:
    """What was made in inference mode can have no gradient; a copy can."""
    return [each.clone() if each.is_inference() else each for each in maps]


def _tensors(value: Any) -> bool:
    """There is a tensor among nested values."""
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, (list, tuple)):
        return any(_tensors(each) for each in value)
    return isinstance(value, Tensor)


def _are_maps(values: Sequence[Any]) -> bool:
    return all(isinstance(each, Tensor) and each.dim() == 4 for each in values)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {', '.join(map(_described, value[:4])) or 'nothing'}"
    return f"a {type(value).__name__}"


@contextmanager
def _training(module: nn.Module | None, training: bool) -> Iterator[None]:
    """The module's own flag, not its children's."""
    if module is None or not training:
        yield
        return
    before = module.training
    module.training = True
    try:
        yield
    finally:
        module.training = before

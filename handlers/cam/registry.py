"""CAM methods by name. A method is a function that gives maps [N, h, w], of N detections.

What it is given is its evidence, for most the gradient on a layer (a MapGradient). The maps may be
negative; the explainer cuts them at zero, in one place, for every method.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from torch import Tensor

from handlers.registry import Registry

Method = Callable[[Any], Tensor]


class Evidence(Enum):
    """What a method looks at, and with that what it is given."""

    GRADIENT = "a MapGradient: the gradient on a layer"
    ACTIVATION = "a MapGradient whose gradient it never looks at"
    ABLATION = "ChannelScores: the target's value without each channel of a layer"
    CHANNELS_AS_MASKS = "ChannelScores: the target's value of the picture under each channel"
    MASKS = "a MaskedPictures: what is found on pictures of which parts are hidden"
    PIXELS = "a PixelGradient: the gradient of the whole network down to its input"
    GUIDED = "a GuidedGradient: the gradient on a layer, and the guided one on the input"


_LOOKS_AT: dict[Method, Evidence] = {}


def looks_at(evidence: Evidence) -> Callable[[Method], Method]:
    """A decorator for methods whose evidence is not a layer's gradient."""

    def decorate(method: Method) -> Method:
        _LOOKS_AT[method] = evidence
        return method

    return decorate


def evidence_of(name: str) -> Evidence:
    """What the method of that name looks at."""
    method = METHODS.get(name)
    return Evidence.GRADIENT if method is None else _LOOKS_AT.get(method, Evidence.GRADIENT)


def methods_without_gradient() -> list[str]:
    """Names of the methods that need no gradient, sorted."""
    needs = (Evidence.GRADIENT, Evidence.PIXELS, Evidence.GUIDED)
    return [name for name in METHODS.names() if evidence_of(name) not in needs]


METHODS: Registry[Method] = Registry("method", "handlers.cam")

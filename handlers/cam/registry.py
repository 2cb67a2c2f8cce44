"""CAM methods by name. A method is a function of a MapGradient that gives maps [N, h, w].

The maps may be negative; the explainer cuts them at zero, in one place, for every method.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from handlers.cam.gradient import MapGradient
from handlers.registry import Registry

Method = Callable[[MapGradient], Tensor]

# Methods that need the activation alone; they also work where there is no gradient.
_WITHOUT_GRADIENT: set[Method] = set()


def without_gradient(method: Method) -> Method:
    """A decorator for methods that never look at the gradient."""
    _WITHOUT_GRADIENT.add(method)
    return method


def methods_without_gradient() -> list[str]:
    """Names of the methods that need no gradient, sorted."""
    return [name for name in METHODS.names() if METHODS.get(name) in _WITHOUT_GRADIENT]


METHODS: Registry[Method] = Registry("method", "handlers.cam")

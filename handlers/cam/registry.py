"""CAM methods by name. A method is a function of a MapGradient that gives maps [N, h, w].

The maps may be negative; the explainer cuts them at zero, in one place, for every method.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from handlers.cam.gradient import MapGradient
from handlers.registry import Registry

Method = Callable[[MapGradient], Tensor]

METHODS: Registry[Method] = Registry("method", "handlers.cam")

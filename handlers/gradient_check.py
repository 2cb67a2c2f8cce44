"""Whether a request asks for a gradient that a detector does not have."""

from __future__ import annotations

from collections.abc import Sequence

from handlers.cam.registry import methods_without_gradient
from handlers.detectors.base import Detector
from handlers.scene import Where
from handlers.schema import ExplainRequest, RequestError
from handlers.targets.registry import find_target


def check_gradient(detector: Detector, request: ExplainRequest, layers: Sequence[Where]) -> None:
    """Raises RequestError, with the methods that still work, if the request's target has no
    gradient, or none on one of its layers, and its method needs one."""
    free, lost = methods_without_gradient(), detector.no_gradient
    if request.method in free:
        return
    inside = any(layer.module is not None and not layer.head for layer in layers)
    if inside and detector.no_backbone_gradient:
        raise _refusal(request, detector.no_backbone_gradient)
    needs: tuple[str, ...] = ("scores", "boxes")  # of a function, which may read anything
    if isinstance(request.target, str):
        found = find_target(request.target)
        needs = found[0].needs if found else ()
    elif not set(needs) <= lost.keys():
        return
    why = next((lost[name] for name in needs if name in lost), None)
    if why:
        raise _refusal(request, why)


def _refusal(request: ExplainRequest, why: str) -> RequestError:
    free = ", ".join(methods_without_gradient())
    return RequestError("method", request.method, f"{free}, since {why}")

"""Whether a request asks for a gradient that a detector does not have."""

from __future__ import annotations

from handlers.cam.registry import methods_without_gradient
from handlers.detectors.base import Detector
from handlers.schema import ExplainRequest, RequestError
from handlers.targets.registry import find_target


def check_gradient(detector: Detector, request: ExplainRequest) -> None:
    """Raises RequestError, with the methods that still work, if the request's target has no
    gradient and its method needs one."""
    free, lost = methods_without_gradient(), detector.no_gradient
    if request.method in free or not lost:
        return
    needs: tuple[str, ...] = ("scores", "boxes")  # of a function, which may read anything
    if isinstance(request.target, str):
        found = find_target(request.target)
        needs = found[0].needs if found else ()
    elif not set(needs) <= lost.keys():
        return
    why = next((lost[name] for name in needs if name in lost), None)
    if why:
        raise RequestError("method", request.method, f"{', '.join(free)}, since {why}")

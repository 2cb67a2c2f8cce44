"""Whether a request's method can be had: of this detector, for its target, on its layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from handlers.cam.registry import Evidence, evidence_of, methods_without_gradient
from handlers.detectors.base import Detector
from handlers.evidence.scene import Where
from handlers.layers import PYRAMID
from handlers.schema import EMITTING, ExplainRequest, RequestError
from handlers.targets.registry import find_target

# The target under which what is found on masked pictures is asked for, since it is the default.
MASKS_TARGET = "class"


def check_method(detector: Detector, request: ExplainRequest, layers: Sequence[Where]) -> None:
    """Raises RequestError, with what is allowed, if the request's method cannot be had with its
    target, its layers or its other fields."""
    evidence = evidence_of(request.method)
    if evidence in (Evidence.GRADIENT, Evidence.PIXELS, Evidence.GUIDED):
        _check_gradient(detector, request, evidence, layers)
    if request.save_raw and evidence not in (Evidence.GRADIENT, Evidence.ACTIVATION):
        raise RequestError(
            "save_raw", True, f"false with {request.method}, which has no gradient on a layer"
        )
    if without_layer(request.method) and request.layers != (EMITTING,):
        raise RequestError(
            "layer", request.layer, f"{EMITTING}, or none given: {request.method} looks at no layer"
        )
    if evidence is Evidence.MASKS and request.target != MASKS_TARGET:
        raise RequestError(
            "target",
            request.target_name,
            f"{MASKS_TARGET}: {request.method} explains a box and its category together",
        )
    tutorial = evidence is Evidence.ABLATION and request.ablation == "tutorial"
    if tutorial and (request.layer, request.target) != (PYRAMID, "box_score"):
        raise RequestError(
            "ablation",
            "tutorial",
            f"fixed; or tutorial with layer {PYRAMID} and target box_score (got layer"
            f" {request.layer or EMITTING}, target {request.target_name})",
        )


def without_layer(method: str) -> bool:
    """The method looks at no layer of the network."""
    return evidence_of(method) in (Evidence.MASKS, Evidence.PIXELS)


def _check_gradient(
    detector: Detector, request: ExplainRequest, evidence: Evidence, layers: Sequence[Where]
) -> None:
    lost = detector.no_gradient
    whole = evidence is not Evidence.GRADIENT
    if whole and any(isinstance(each, torch.jit.ScriptModule) for each in detector.model.modules()):
        raise refusal(request, "the modules of a TorchScript network cannot be looked into")
    inside = whole or any(layer.module is not None and not layer.head for layer in layers)
    if inside and detector.no_backbone_gradient:
        raise refusal(request, detector.no_backbone_gradient)
    needs: tuple[str, ...] = ("scores", "boxes")  # of a function, which may read anything
    if isinstance(request.target, str):
        found = find_target(request.target)
        needs = found[0].needs if found else ()
    elif not set(needs) <= lost.keys():
        return
    why = next((lost[name] for name in needs if name in lost), None)
    if why:
        raise refusal(request, why)


def refusal(request: ExplainRequest, why: str) -> RequestError:
    """Of a method that needs a gradient where there is none: names those that need none."""
    masks = request.target == MASKS_TARGET and request.layers == (EMITTING,)
    free = [
        name
        for name in methods_without_gradient()
        if masks or evidence_of(name) is not Evidence.MASKS
    ]
    return RequestError("method", request.method, f"{', '.join(free)}, since {why}")

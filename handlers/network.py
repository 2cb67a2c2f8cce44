"""A detector as it runs here: at a precision, and with an eye on what is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from handlers.detectors.base import AllParts, Detector, Features, Found, Inputs, Part, Raw
from handlers.fields import RequestError
from handlers.normalisation import normalisations
from handlers.precision import (
    PRECISIONS,
    CompiledBackbone,
    Replaced,
    exact_float32,
    halved_products,
    has_bfloat16_units,
    is_depthwise,
    order_weights,
    quick_pools,
)
from handlers.tap import NonFiniteError, all_finite, check_weights, finite

CPU = torch.device("cpu")


class Network:
    """The four verbs of a detector, one after the other, at a precision.

    precision: "fp32" is exact. "bf16" computes the feature maps in bfloat16. "fast" compiles the
    backbone, and where the device has units for bfloat16 does that, too (on a processor not for
    depthwise networks, which it makes no faster), keeps weights and pixels in the order of
    channels_last, and multiplies in the large layers of two-stage heads in bfloat16; RoIAlign sums
    in another order. All else of the heads stays in float32: with heads all in bfloat16 other
    proposals survive, and 3 % of the demo's boxes move by more than an IoU of 0.95, against 1 % so.

    A model's normalisations are looked for once: one that is put in later is not guarded.
    """

    def __init__(self, detector: Detector, precision: str = "fp32") -> None:
        """Raises RequestError for an unknown precision."""
        if precision not in PRECISIONS:
            raise RequestError("precision", precision, ", ".join(PRECISIONS))
        self.detector = detector
        self.normalisations = normalisations(detector.model)
        self.fast = precision == "fast"
        self.bfloat16 = precision == "bf16"
        if self.fast:
            device = next((each.device for each in detector.model.parameters()), CPU)
            units = has_bfloat16_units(device)
            products = device != CPU or not is_depthwise(detector.model)
            self.bfloat16 = units and products
            self.order = torch.channels_last if products else torch.contiguous_format
            order_weights(detector.model, self.order)
            self._compiled = CompiledBackbone(detector.model)
            halved = halved_products(detector.model) if units else {}
            self._heads = Replaced(halved | quick_pools(detector.model))

    def features(self, inputs: Inputs) -> Features:
        """The feature maps in float32, differentiable where gradients are enabled."""
        device = inputs.tensors.device
        with exact_float32(), torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
            features = self.detector.features(inputs)
        return replace(features, maps={name: each.float() for name, each in features.maps.items()})

    def _quick_heads(self) -> AbstractContextManager[None]:
        return self._heads.in_place() if self.fast else nullcontext()

    @torch.no_grad()
    def find(self, inputs: Inputs) -> list[Found]:
        """What is found on each picture of a batch. Raises NonFiniteError, with the first layer
        whose output is not finite."""
        try:
            if not self.fast:
                return self.find_in(self.features(inputs))
            tensors = inputs.tensors.contiguous(memory_format=self.order)
            with self._compiled.in_place():
                features = self.features(replace(inputs, tensors=tensors))
            return self.find_in(features)
        except NonFiniteError:
            self.name_non_finite(inputs)
            raise

    @torch.no_grad()
    def find_in(self, features: Features) -> list[Found]:
        """The same from feature maps, which may have been changed."""
        with exact_float32(), self._quick_heads():
            candidates = self.detector.propose(features)
            raw = self.detector.score(features, candidates)
            check_finite(features, raw)
            kept = self.detector.select(features, candidates, raw)
        return [
            Found(features.of(picture), *each)
            for picture, each in enumerate(zip(candidates, raw, kept, strict=True))
        ]

    @torch.no_grad()
    def again(self, found: Found) -> Found:
        """The same picture, candidates and detections with the feature maps and the head's outputs
        that the weights, which may have been changed, give now. Errors as for `find`."""
        features = self.features(found.features.inputs)
        with exact_float32(), self._quick_heads():
            (raw,) = self.detector.score(features, [found.candidates])
            check_finite(features, [raw])
        return replace(found, features=features, raw=raw)

    def name_non_finite(self, inputs: Inputs, part: Part | AllParts | None = None) -> None:
        """Raises NonFiniteError for the first weight or activation that is not finite, if any."""
        check_weights(self.detector.model)
        with torch.no_grad(), exact_float32(), finite(self.detector.model):
            features = self.features(inputs)
            if part is None:
                self.detector.score(features, self.detector.propose(features))
            else:
                part.outputs([*features.maps.values()])


def check_finite(features: Features, raw: Sequence[Raw]) -> None:
    """Raises NonFiniteError if a feature map, score or box is NaN or infinite."""
    outputs = [tensor for each in raw for tensor in (each.logits, each.scores, each.boxes)]
    if not all_finite([*features.maps.values(), *outputs]):
        raise NonFiniteError("a feature map, box or score is not finite (NaN or infinity)")


def batch_of(inputs: Sequence[Inputs]) -> Inputs:
    """Inputs of one padded size as one batch."""
    return replace(
        inputs[0],
        tensors=torch.cat([each.tensors for each in inputs]),
        sizes=[size for each in inputs for size in each.sizes],
        geometries=[geometry for each in inputs for geometry in each.geometries],
    )


def with_pixels(inputs: Inputs, tensors: Tensor) -> Inputs:
    """The inputs of one picture with other pixels: tensors [B, 3, h, w], a batch of B."""
    number = len(tensors)
    return replace(
        inputs,
        tensors=tensors,
        sizes=inputs.sizes * number,
        geometries=inputs.geometries * number,
    )

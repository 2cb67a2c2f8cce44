"""What a request may ask and what an answer holds.

These frozen dataclasses are the one vocabulary of the endpoint, the jobs and Python scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from handlers.images import Geometry


class RequestError(ValueError):
    """A request that cannot be served: names the field, what came, and what is allowed."""

    def __init__(self, name: str, got: object, allowed: str) -> None:
        shown = repr(got)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        super().__init__(f"{name}: got {shown}; allowed: {allowed}")
        self.name = name
        self.allowed = allowed


@dataclass(frozen=True)
class ExplainRequest:
    """What to explain, and how.

    method: a name of `handlers.cam.registry`, e.g. "odam", "gradcam".
    target: which output of the detector is explained, e.g. "class" (the logit before softmax).
    layer: None or "emitting" for the pyramid level that emitted the box, or another name that
        `Explainer.layers` lists.
    category: explain only boxes of this category; None for all.
    score_threshold: boxes scoring less are not explained, 0 ... 1.
    max_detections: at most this many boxes of a picture are explained, best first, at least 1.
    """

    method: str = "odam"
    target: str = "class"
    layer: str | None = None
    category: str | None = None
    score_threshold: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        threshold, most = self.score_threshold, self.max_detections
        if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
            raise RequestError("score_threshold", threshold, "a number from 0 to 1")
        if not isinstance(most, int) or not 1 <= most <= 10_000:
            raise RequestError("max_detections", most, "an integer from 1 to 10000")

    @classmethod
    def from_fields(
        cls, values: Mapping[str, Any], defaults: ExplainRequest | None = None
    ) -> ExplainRequest:
        """A request from text or JSON values, on top of `defaults`.

        Raises RequestError for an unknown field and for a value of the wrong type or range.
        """
        known = [each.name for each in fields(cls)]
        parsed = {}
        for name, value in values.items():
            if name not in known:
                raise RequestError("field", name, ", ".join(known))
            parsed[name] = _parse_field(name, value)
        return replace(defaults or cls(), **parsed)


def _parse_field(name: str, value: Any) -> Any:
    if name == "score_threshold":
        return _number(name, value, float, "a number from 0 to 1")
    if name == "max_detections":
        return _number(name, value, int, "an integer from 1 to 10000")
    if value is None and name in ("layer", "category"):
        return None
    if not isinstance(value, str) or not value:
        raise RequestError(name, value, "a non-empty string")
    return value


def _number(name: str, value: Any, kind: type, allowed: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise RequestError(name, value, allowed)
    try:
        number = kind(value)
    except (ValueError, OverflowError) as error:
        raise RequestError(name, value, allowed) from error
    if isinstance(value, float) and number != value:
        raise RequestError(name, value, allowed)
    return number


@dataclass(frozen=True)
class Detections:
    """One picture's detections, in the order and with the values of the stock torchvision model.

    boxes: float32 [N, 4], x1, y1, x2, y2 in picture pixels.
    labels: int64 [N], index into the detector's categories.
    scores: float32 [N], 0 ... 1, descending.
    candidate: int64 [N], the candidate (proposal or anchor) that emitted each detection.
    level: for each detection the name of the feature map that emitted its class and edges.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    candidate: Tensor
    level: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.level)


@dataclass(frozen=True)
class Explanation:
    """Why the detector drew one box.

    index: the detection's place among all detections of its picture (before any threshold).
    box: x1, y1, x2, y2 in picture pixels.
    heatmap: float32 [h, w] on the feature map's own grid (cells of padding included), on the CPU,
        non-negative, not normalised.
    geometry: places the heatmap's grid on the picture.
    """

    index: int
    box: tuple[float, float, float, float]
    label: int
    category: str
    score: float
    method: str
    target: str
    layer: str
    level: str
    heatmap: Tensor = field(repr=False)
    geometry: Geometry = field(repr=False)

    def on_picture(self) -> Tensor:
        """The heatmap on the picture's pixels: float32 [H, W], bilinear, not normalised."""
        return self.geometry.to_picture(self.heatmap)

    def normalised(self) -> Tensor:
        """`on_picture` divided by its maximum (all zero stays zero): float32 [H, W], 0 ... 1."""
        heat = self.on_picture()
        maximum = heat.max()
        return heat / maximum if maximum > 0 else torch.zeros_like(heat)

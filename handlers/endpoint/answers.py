"""What an endpoint answers in JSON, as dataclasses, of which the JSON Schemas are made."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

from handlers.images import Geometry
from handlers.render import encode_heatmap
from handlers.schema import Detections, ExplainRequest, Explanation

SPARE = 20  # bytes


@dataclass(frozen=True)
class PictureSize:
    """width, height: of the picture, upright, in pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class HeatmapAnswer:
    """A heatmap on its layer's own grid.

    png: base64 of an 8-bit grey PNG: 0 stands for `min`, 255 for `max`.
    width, height: of the grid, in cells.
    min, max: of the map's values, which are not normalised.
    """

    png: str
    width: int
    height: int
    min: float
    max: float

    @classmethod
    def of(cls, heatmap: Tensor) -> HeatmapAnswer:
        """Of float32 [h, w]."""
        height, width = heatmap.shape
        png = base64.b64encode(encode_heatmap(heatmap)).decode()
        return cls(png, width, height, float(heatmap.min()), float(heatmap.max()))


@dataclass(frozen=True)
class ExplanationAnswer:
    """Why the detector drew one box.

    index: the detection's place among all of its picture; of a candidate its place among those.
    box: x1, y1, x2, y2 in pixels of the picture.
    label: its category's number. category: its category's name. score: 0 ... 1.
    method, target, layer: what was asked. level: the feature map that emitted the box.
    heatmap: whole, also where `in_box` is set; null where the answer would have been too large.
    geometry: places the heatmap's grid on the picture.
    outcome: "reported", or why a candidate was not. suppressed_by: the index of the box that did.
    together: the indices of all boxes that this explanation is of, where there are several.
    in_box: the request asked to show the heatmap inside its box alone: with `boxes` inside each of
        them, where they overlap the larger value.
    boxes: x1, y1, x2, y2 of each of `together`; empty where the explanation is of one box.
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
    heatmap: HeatmapAnswer | None
    geometry: Geometry
    outcome: str
    suppressed_by: int | None
    together: tuple[int, ...]
    in_box: bool
    boxes: tuple[tuple[float, float, float, float], ...]

    @classmethod
    def of(cls, explanation: Explanation) -> ExplanationAnswer:
        """With its heatmap."""
        names = ("index", "box", "label", "category", "score", "method", "target", "layer", "level")
        rest = ("geometry", "outcome", "suppressed_by", "together", "in_box", "boxes")
        values = {name: getattr(explanation, name) for name in (*names, *rest)}
        return cls(heatmap=HeatmapAnswer.of(explanation.heatmap), **values)


@dataclass(frozen=True)
class ExplanationsAnswer:
    """The answer of /explanations with format json.

    request: what was explained, with all defaults filled in.
    explanations: best score first.
    omitted_heatmaps: how many have none, because the server's limit on the size of an answer was
        reached: those that score least.
    omitted_explanations: how many are left out altogether, for the same reason.
    trimmed: fields of the request that were lowered to keep within its time limit.
    """

    picture: PictureSize
    request: Mapping[str, Any]
    explanations: tuple[ExplanationAnswer, ...]
    omitted_heatmaps: int = 0
    omitted_explanations: int = 0
    trimmed: Mapping[str, int] = field(default_factory=dict)

    def json_within(self, most: int) -> bytes:
        """JSON of at most `most` bytes, as far as leaving out heatmaps and then whole explanations
        can do that; always those that score least."""
        body = to_json(asdict(self))
        excess = len(body) - most
        return body if excess <= 0 else to_json(asdict(self._shorter(excess)))

    def _shorter(self, excess: int) -> ExplanationsAnswer:
        """By at least so many bytes, as far as that can be."""
        excess += SPARE  # the numbers of what is omitted have more digits then
        kept = len(self.explanations)
        while kept and excess > 0:
            kept -= 1
            heatmap = self.explanations[kept].heatmap
            excess -= len(to_json(asdict(heatmap))) - len(b"null") if heatmap else 0
        bare = [replace(each, heatmap=None) for each in self.explanations[kept:]]
        omitted = 0
        while bare and excess > 0:
            excess -= len(to_json(asdict(bare.pop()))) + len(b", ")
            omitted += 1
        return replace(
            self,
            explanations=self.explanations[:kept] + tuple(bare),
            omitted_heatmaps=len(bare) + omitted,
            omitted_explanations=omitted,
        )


@dataclass(frozen=True)
class ErrorReason:
    """type: the kind of error. message: what was expected, what came, what to do. field: the
    request's field that is wrong, null where it is another thing."""

    type: str
    message: str
    field: str | None = None


@dataclass(frozen=True)
class ErrorAnswer:
    """The answer of a request that failed, with status 400 and above.

    error: why it did.
    """

    error: ErrorReason


def request_fields(request: ExplainRequest) -> dict[str, Any]:
    """A request as an answer repeats it: JSON values, without what HTTP cannot ask for."""
    values = asdict(replace(request, target=request.target_name))
    del values["save_raw"]
    return values


def detection_rows(
    detections: Detections, chosen: Tensor, categories: Sequence[str]
) -> list[dict[str, Any]]:
    """TorchServe's conventional answer: [{"person": [x1, y1, x2, y2], "score": 0.99}, ...].

    chosen: int64, places in `detections`, in the answer's order.
    """
    rows = zip(
        detections.boxes[chosen].tolist(),
        detections.labels[chosen].tolist(),
        detections.scores[chosen].tolist(),
        strict=True,
    )
    return [{categories[label]: box, "score": score} for box, label, score in rows]


def to_json(value: object) -> bytes:
    """UTF-8 JSON; a NaN, which JSON does not know, raises ValueError."""
    return json.dumps(value, allow_nan=False).encode()

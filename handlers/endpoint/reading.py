"""What the endpoint reads and writes: a request item to a picture and options, results to bytes."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from handlers.cam.registry import Evidence, evidence_of
from handlers.images import PictureError, decode_picture
from handlers.render import encode_heatmap, encode_jpeg, overlay_all
from handlers.schema import Detections, ExplainRequest, Explanation, RequestError

# Names under which a picture may come: ours, and TorchServe's conventions.
PICTURE_FIELDS = ("picture", "data", "body")
# What one request may ask for: each candidate and each layer costs time and memory of its own.
MOST_CANDIDATES = 100
MOST_LAYERS = 8
# Each mask costs a detection: 1000 of them take a GPU most of a minute.
MOST_MASKS = 1000
# Boxes of which methods that go down to the pixels run the whole network backwards, each by itself.
MOST_PIXEL_MAPS = 20


@dataclass(frozen=True)
class Message:
    """One request: picture uint8 [3, H, W], what to explain, and the answer's format."""

    picture: Tensor
    request: ExplainRequest
    format: str = "json"


@dataclass(frozen=True)
class Answer:
    """One item's answer: its bytes, their media type, and the HTTP status."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200


def parse_message(item: Mapping[str, Any], defaults: ExplainRequest) -> Message:
    """A request item as TorchServe hands it over.

    A raw body is the picture; multipart fields are one of PICTURE_FIELDS and the options; JSON
    holds the picture in base64 and the options. Raises PictureError or RequestError.
    """
    body = item.get("body")
    fields = dict(body) if isinstance(body, Mapping) else dict(item)
    given = [name for name in PICTURE_FIELDS if name in fields]
    if not given:
        raise RequestError(
            "picture", None, "bytes as the body, a multipart field, or base64 in JSON"
        )
    data = _picture_bytes(fields.pop(given[0]))
    values = {name: _text(name, value) for name, value in fields.items()}
    answer = values.pop("format", "json")
    if answer not in list(WRITERS):
        raise RequestError("format", answer, ", ".join(WRITERS))
    request = ExplainRequest.from_fields(values, defaults)
    if request.save_raw:
        raise RequestError("save_raw", True, "false over HTTP; jobs and Python scripts can")
    if request.candidates > MOST_CANDIDATES:
        raise RequestError("candidates", request.candidates, f"0 to {MOST_CANDIDATES} over HTTP")
    if len(request.layers) > MOST_LAYERS:
        raise RequestError("layer", len(request.layers), f"{MOST_LAYERS} names over HTTP")
    return Message(decode_picture(data), request, answer)


def affordable(request: ExplainRequest, most: int) -> ExplainRequest:
    """The request as an endpoint answers it: at most MOST_MASKS masks, also where it names no
    number. most: how many boxes it may explain. Raises RequestError for one that costs too much."""
    evidence = evidence_of(request.method)
    if evidence is Evidence.MASKS:
        masks = MOST_MASKS if request.masks is None else request.masks
        if masks > MOST_MASKS:
            raise RequestError("masks", masks, f"1 to {MOST_MASKS} over HTTP")
        return replace(request, masks=masks)
    of_channels = evidence in (Evidence.ABLATION, Evidence.CHANNELS_AS_MASKS)
    if of_channels and len(request.layers) > 1:
        raise RequestError(
            "layer", request.layer, f"one name over HTTP: {request.method} runs for each channel"
        )
    if evidence in (Evidence.PIXELS, Evidence.GUIDED) and most > MOST_PIXEL_MAPS:
        raise RequestError(
            "max_detections", most, f"1 to {MOST_PIXEL_MAPS} over HTTP with {request.method}"
        )
    return request


def _picture_bytes(value: object) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, str):
        try:
            # Tools wrap lines; everything else that is not base64 is a mistake.
            return base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise PictureError(f"the picture's text is not base64: {error}") from error
    raise RequestError("picture", value, "bytes as the body, a multipart field, or base64 in JSON")


def _text(name: str, value: Any) -> Any:
    """Multipart text fields arrive as bytes."""
    if not isinstance(value, (bytes, bytearray)):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RequestError(name, bytes(value), "UTF-8 text") from error


def detections_json(detections: Detections, chosen: Tensor, categories: Sequence[str]) -> bytes:
    """TorchServe's conventional answer: [{"person": [x1, y1, x2, y2], "score": 0.99}, ...].

    chosen: int64, places in `detections`, in the answer's order.
    """
    rows = zip(
        detections.boxes[chosen].tolist(),
        detections.labels[chosen].tolist(),
        detections.scores[chosen].tolist(),
        strict=True,
    )
    return to_json([{categories[label]: box, "score": score} for box, label, score in rows])


def explanations_json(picture: Tensor, explanations: Sequence[Explanation]) -> bytes:
    """{"picture": {"width", "height"}, "explanations": [{box, ..., "heatmap": {"png", ...}}]}.

    The heatmap is whole also where "in_box" asks to show it inside its box alone.
    """
    return to_json(
        {
            "picture": {"width": picture.shape[2], "height": picture.shape[1]},
            "explanations": [_explanation_fields(each) for each in explanations],
        }
    )


def _explanation_fields(explanation: Explanation) -> dict[str, Any]:
    heatmap = explanation.heatmap
    return {
        "index": explanation.index,
        "box": list(explanation.box),
        "label": explanation.label,
        "category": explanation.category,
        "score": explanation.score,
        "method": explanation.method,
        "target": explanation.target,
        "layer": explanation.layer,
        "level": explanation.level,
        "heatmap": {
            "png": base64.b64encode(encode_heatmap(heatmap)).decode(),
            "width": heatmap.shape[1],
            "height": heatmap.shape[0],
            "min": float(heatmap.min()),
            "max": float(heatmap.max()),
        },
        "geometry": explanation.geometry.to_dict(),
        "outcome": explanation.outcome,
        "suppressed_by": explanation.suppressed_by,
        "together": list(explanation.together),
        "in_box": explanation.in_box,
    }


def explanations_overlay(picture: Tensor, explanations: Sequence[Explanation]) -> bytes:
    """A JPEG of the picture, its boxes and the maximum of their heatmaps."""
    return encode_jpeg(overlay_all(picture, explanations))


def explanations_npz(picture: Tensor, explanations: Sequence[Explanation]) -> bytes:
    """An .npz: heatmap_0, heatmap_1, ... (float32 [h, w], raw), and what they explain.

    boxes [N, 4], labels [N], scores [N], indices [N], layers [N], outcomes [N] (text), in_box [N]
    (whether to show it inside its box alone), geometries [N] (JSON text).
    """
    arrays: dict[str, Any] = {
        f"heatmap_{place}": each.heatmap.numpy() for place, each in enumerate(explanations)
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        boxes=np.array([each.box for each in explanations], np.float32).reshape(-1, 4),
        labels=np.array([each.label for each in explanations], np.int64),
        scores=np.array([each.score for each in explanations], np.float32),
        indices=np.array([each.index for each in explanations], np.int64),
        layers=np.array([each.layer for each in explanations], np.str_),
        outcomes=np.array([each.outcome for each in explanations], np.str_),
        in_box=np.array([each.in_box for each in explanations], np.bool_),
        geometries=np.array(
            [json.dumps(each.geometry.to_dict()) for each in explanations], np.str_
        ),
        **arrays,
    )
    return buffer.getvalue()


def to_json(value: object) -> bytes:
    """UTF-8 JSON."""
    return json.dumps(value).encode()


# How explanations are written, by the request's format: the media type and the writer.
WRITERS: dict[str, tuple[str, Callable[[Tensor, Sequence[Explanation]], bytes]]] = {
    "json": ("application/json", explanations_json),
    "overlay": ("image/jpeg", explanations_overlay),
    "npz": ("application/octet-stream", explanations_npz),
}

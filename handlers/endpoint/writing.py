"""From explanations to an answer's bytes, in the format and within the size that are asked for."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from handlers.endpoint.answers import (
    ErrorAnswer,
    ErrorReason,
    ExplanationAnswer,
    ExplanationsAnswer,
    PictureSize,
    request_fields,
    to_json,
)
from handlers.endpoint.reading import FIELDS
from handlers.fields import RequestError
from handlers.render import LONGEST, overlay_all
from handlers.schema import ExplainRequest, Explanation

# Pillow's names and settings of an overlay's media types; the first is the one by itself.
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "image/jpeg": ("JPEG", {"quality": 90}),
    "image/png": ("PNG", {}),
    "image/webp": ("WEBP", {"quality": 90}),
}
LEAST_LONGEST = 100
QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")
OMITTED, TRIMMED = "X-Whybox-Omitted-Heatmaps", "X-Whybox-Trimmed"


@dataclass(frozen=True)
class Answer:
    """One item's answer: its bytes, their media type, the HTTP status, further headers, and of an
    error its kind, as the log and the metrics have it."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Explained:
    """What became of a request.

    picture: uint8 [3, H, W]. request: with all defaults filled in. trimmed: its fields that were
    lowered to keep within the time.
    """

    picture: Tensor
    request: ExplainRequest
    explanations: Sequence[Explanation]
    trimmed: Mapping[str, int] = field(default_factory=dict)


def explanations_answer(explained: Explained, kind: str, accept: str, most: int) -> Answer:
    """The answer in a format of `handlers.endpoint.reading.FORMATS` of at most `most` bytes.

    What is left out for that is said: in JSON and npz by `omitted_heatmaps`, of overlays by a
    smaller picture. accept: of the request, for overlays. Raises NotAcceptableError if that allows
    for none of PICTURES.
    """
    answer = WRITERS[kind](explained, accept, most)
    trimmed = ", ".join(f"{name}={value}" for name, value in explained.trimmed.items())
    return replace(answer, headers={**answer.headers, TRIMMED: trimmed}) if trimmed else answer


def error_answer(status: int, error: Exception, message: str | None = None) -> Answer:
    """message: what the client is told, the error's own by itself."""
    name = error.name if isinstance(error, RequestError) and error.name in FIELDS else None
    reason = ErrorReason(type(error).__name__, str(error) if message is None else message, name)
    return Answer(to_json(asdict(ErrorAnswer(reason))), status=status, reason=reason.type)


class NotAcceptableError(RequestError):
    """The header Accept allows for nothing that there is."""


def picture_type(accept: str) -> str:
    """The media type of PICTURES that a header Accept prefers (RFC 9110, 12.5.1), the first of
    them where it does not care. Raises NotAcceptableError."""
    weights: dict[str, float] = {}
    for part in [each for each in accept.split(",") if each.strip()] or ["*/*"]:
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        weights[name] = float(quality) if QUALITY.fullmatch(quality) else 0.0

    def weight(name: str) -> float:
        given = [weights[each] for each in (name, "image/*", "*/*") if each in weights]
        return given[0] if given else 0.0

    best = max(PICTURES, key=weight)  # of equals the first
    if not weight(best) > 0:
        raise NotAcceptableError("Accept", accept, ", ".join(PICTURES))
    return best


def _json(explained: Explained, accept: str, most: int) -> Answer:
    picture = explained.picture
    answer = ExplanationsAnswer(
        PictureSize(picture.shape[2], picture.shape[1]),
        request_fields(explained.request),
        tuple(ExplanationAnswer.of(each) for each in explained.explanations),
        trimmed=explained.trimmed,
    )
    return Answer(answer.json_within(most))


def _overlay(explained: Explained, accept: str, most: int) -> Answer:
    content_type = picture_type(accept)
    name, settings = PICTURES[content_type]
    longest, body = LONGEST, b""
    while longest >= LEAST_LONGEST:
        buffer = io.BytesIO()
        image = overlay_all(explained.picture, explained.explanations, longest)
        image.save(buffer, name, **settings)
        body = buffer.getvalue()
        if len(body) <= most:
            break
        longest //= 2
    return Answer(body, content_type)


def _npz(explained: Explained, accept: str, most: int) -> Answer:
    kept = len(explained.explanations)
    body = explanations_npz(explained.explanations, kept)
    while kept and len(body) > most:
        kept = min(kept - 1, int(kept * most / len(body)))
        body = explanations_npz(explained.explanations, kept)
    omitted = len(explained.explanations) - kept
    headers = {OMITTED: str(omitted)} if omitted else {}
    return Answer(body, "application/octet-stream", headers=headers)


def explanations_npz(explanations: Sequence[Explanation], kept: int) -> bytes:
    """An .npz: heatmap_0, heatmap_1, ... (float32 [h, w], raw) of the first `kept`, and what all
    explain.

    boxes [N, 4], labels [N], scores [N], indices [N], layers [N], outcomes [N] (text), in_box [N]
    (whether to show it inside its box alone), geometries [N] (JSON text), omitted_heatmaps [].
    boxes_0, boxes_1, ... [M, 4]: of those that are of several boxes together, each of these.
    """
    arrays: dict[str, Any] = {
        f"heatmap_{place}": each.heatmap.numpy() for place, each in enumerate(explanations[:kept])
    }
    arrays |= {
        f"boxes_{place}": np.array(each.boxes, np.float32)
        for place, each in enumerate(explanations)
        if each.boxes
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
        omitted_heatmaps=np.array(len(explanations) - kept),
        **arrays,
    )
    return buffer.getvalue()


# By the request's format.
WRITERS: dict[str, Callable[[Explained, str, int], Answer]] = {
    "json": _json,
    "overlay": _overlay,
    "npz": _npz,
}

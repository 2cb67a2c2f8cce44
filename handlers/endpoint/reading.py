"""From a request item, as a server hands it over, to a picture and what is asked of it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from handlers.endpoint.object_reference import SCHEME, read_object
from handlers.endpoint.settings import MOST_SECONDS
from handlers.fields import Choice, Number, RequestError, check_options, kinds, option, parse_option
from handlers.images import PictureError, decode_picture
from handlers.schema import ExplainRequest

# Names under which a picture may come: ours, and TorchServe's conventions.
PICTURE_FIELDS = ("picture", "data", "body")
FORMATS = ("json", "overlay", "npz")
# What one request may ask for: each candidate and each layer takes memory of its own.
MOST_CANDIDATES = 100
MOST_LAYERS = 8
# What is allowed where a picture is missing, or of no known kind.
PICTURE = "bytes as the body, a multipart field, base64 in JSON, or s3://BUCKET/KEY"


@dataclass(frozen=True)
class AnswerOptions:
    """How an explanation is to be answered.

    format: "json", "overlay" (a picture of the boxes and their heatmaps: JPEG, PNG or WebP, as the
        header Accept says) or "npz" (the raw maps).
    time_limit: seconds that explaining may take; None for what the server can give. Never more than
        that: the request's share of the time after which the server would give up its whole batch.
    over_limit: what becomes of an explanation that takes longer: "refuse" (status 422, as soon as
        that is clear), or "trim" (fewer boxes or masks; the answer says how many).
    """

    format: str = option(Choice(FORMATS), "json")
    time_limit: float | None = option(Number(0, MOST_SECONDS, above=True), None, nullable=True)
    over_limit: str = option(Choice(("refuse", "trim")), "refuse")

    def __post_init__(self) -> None:
        check_options(self)


# That a request may have.
FIELDS = ("picture", *kinds(ExplainRequest), *kinds(AnswerOptions))


@dataclass(frozen=True)
class Message:
    """One request: picture uint8 [3, H, W], what to explain, and how to answer."""

    picture: Tensor
    request: ExplainRequest
    options: AnswerOptions


def parse_message(
    item: Mapping[str, Any], defaults: ExplainRequest, buckets: Sequence[str] = ()
) -> Message:
    """A request item as TorchServe hands it over.

    A raw body is the picture; multipart fields are one of PICTURE_FIELDS and the options; JSON
    holds the picture in base64 and the options. Instead of the picture there may be s3://BUCKET/KEY,
    BUCKET being one of `buckets`. Raises PictureError or RequestError, or what
    `handlers.endpoint.object_reference.read_object` raises.
    """
    given = _given(item)
    names = [name for name in PICTURE_FIELDS if name in given]
    if not names:
        raise RequestError("picture", None, PICTURE)
    picture = given.pop(names[0])
    for name in given:
        if name not in FIELDS:
            raise RequestError("field", name, ", ".join(FIELDS))
    values = {name: _text(name, value) for name, value in given.items()}
    options = {
        name: parse_option(AnswerOptions, name, values.pop(name))
        for name in kinds(AnswerOptions)
        if name in values
    }
    request = ExplainRequest.from_fields(values, defaults)
    _check_served(request)
    # Last, since it may have to be fetched.
    data = _picture_bytes(picture, buckets)
    return Message(decode_picture(data), request, AnswerOptions(**options))


def _given(item: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an item, which stand in a JSON body, beside the body, or both."""
    body = item.get("body")
    if not isinstance(body, Mapping):
        return dict(item)
    beside = {name: value for name, value in item.items() if name != "body"}
    for name in beside.keys() & body.keys():
        raise RequestError(name, beside[name], "once: the JSON body has it, too")
    return {**beside, **body}


def _check_served(request: ExplainRequest) -> None:
    if request.save_raw:
        raise RequestError("save_raw", True, "false over HTTP; jobs and Python scripts can")
    if request.candidates > MOST_CANDIDATES:
        raise RequestError("candidates", request.candidates, f"0 to {MOST_CANDIDATES} over HTTP")
    if len(request.layers) > MOST_LAYERS:
        raise RequestError("layer", len(request.layers), f"{MOST_LAYERS} names over HTTP")


def _picture_bytes(value: object, buckets: Sequence[str]) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        if not bytes(value[:20]).lstrip().startswith(SCHEME.encode()):
            return bytes(value)
        value = _text("picture", value)
    if isinstance(value, str) and "://" in value[:20]:
        return read_object(value.strip(), buckets)
    if isinstance(value, str):
        try:
            # Tools wrap lines; everything else that is not base64 is a mistake.
            return base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise PictureError(f"the picture's text is not base64: {error}") from error
    raise RequestError("picture", value, PICTURE)


def _text(name: str, value: Any) -> Any:
    """Multipart text fields arrive as bytes."""
    if not isinstance(value, (bytes, bytearray)):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RequestError(name, bytes(value), "UTF-8 text") from error

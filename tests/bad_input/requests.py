"""Requests as a hostile or clumsy client makes them: mutated pictures, fields, bodies, headers."""

from __future__ import annotations

import base64
import functools
import io
import json
from typing import Any

from hypothesis import strategies as st

from handlers.endpoint.reading import FIELDS
from handlers.images import to_image
from tests.conftest import scene_picture

SMALL = (64, 48)


@functools.cache
def encoded(kind: str, mode: str = "RGB") -> bytes:
    """A scene's picture, small, in one of Pillow's formats."""
    buffer = io.BytesIO()
    to_image(scene_picture(0)).resize(SMALL).convert(mode).save(buffer, kind)
    return buffer.getvalue()


GOOD = st.sampled_from(
    [("PNG", "RGB"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "I;16"),
     ("JPEG", "CMYK"), ("JPEG", "L"), ("GIF", "P"), ("TIFF", "RGB"), ("BMP", "RGB"), ("PPM", "RGB"),
     ("ICO", "RGBA"), ("TGA", "RGB"), ("PCX", "RGB")]
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some of them overwritten, cut off, repeated or added."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        if not changed:
            break
        place = draw(st.integers(0, len(changed) - 1))
        way = draw(st.sampled_from(["byte", "long", "cut", "insert", "repeat"]))
        if way == "byte":
            changed[place] = draw(st.integers(0, 255))
        elif way == "long":  # sizes and lengths are of four bytes
            number = draw(st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1]))
            changed[place : place + 4] = number.to_bytes(
                4, draw(st.sampled_from(["big", "little"]))
            )
        elif way == "cut":
            del changed[place:]
        elif way == "insert":
            changed[place:place] = draw(st.binary(max_size=64))
        else:
            changed[place:place] = changed[place : place + 256] * draw(st.integers(1, 8))
    return bytes(changed)


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """Pictures, whole or damaged, and what is none."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(st.binary(max_size=200), st.just(b""), st.just(b"s3://a/b")))
    return draw(damaged(encoded(*draw(GOOD))))


NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**400, 1e308, 1e-308, 0.5]),
)
WORDS = st.one_of(
    st.sampled_from(
        ["odam", "gradcam", "eigencam", "drise", "ablationcam", "fullgrad", "class", "x1", "score",
         "emitting", "roi", "C3", "pyramid,C4", "json", "npz", "overlay", "trim", "true", "1e999",
         "nan", "", "../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:8081/models",
         "s3://a/b", "\x00", "{}", "[1,2]", "car", "__background__"]
    ),
    st.text(max_size=12),
)  # fmt: skip
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=6,
)
# Of headers, too: TorchServe puts a form's fields among them.
HEADER_NAMES = ["x-request-id", "x-whybox-client", "accept", "authorization", "explain", "describe"]
NAMES = st.one_of(
    st.sampled_from([*FIELDS, "data", "body", "instances", "inputs", "id", *HEADER_NAMES]), WORDS
)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """JSON objects: fields right and wrong, and KServe's two shapes."""
    fields = draw(st.dictionaries(NAMES, JSON, max_size=3))
    text = base64.b64encode(draw(pictures())).decode()
    if draw(st.booleans()):
        fields["picture"] = text
    way = draw(st.integers(0, 4))
    if way == 0:
        return {
            "instances": draw(st.one_of(JSON, st.just([fields, fields]))),
            **draw(some_fields()),
        }
    if way == 1:
        tensor = {"name": "picture", "shape": [1], "datatype": "BYTES", "data": [text]}
        other = {"name": draw(NAMES), "data": draw(JSON)}
        inputs = draw(st.one_of(JSON, st.just([tensor]), st.just([tensor, other])))
        return {"inputs": inputs, **draw(some_fields())}
    return fields


def some_fields() -> st.SearchStrategy[dict[str, Any]]:
    """One field, or none."""
    return st.dictionaries(st.sampled_from(["parameters", "id", "x"]), JSON, max_size=1)


@st.composite
def form_fields(draw: st.DrawFn) -> dict[str, bytes]:
    """What TorchServe makes of a multipart body."""
    found = {
        name: text.encode("utf-8", "surrogatepass")
        for name, text in draw(st.dictionaries(NAMES, WORDS, max_size=3)).items()
    }
    if draw(st.booleans()):
        found[draw(st.sampled_from(["picture", "data"]))] = draw(pictures())
    return found


HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Accept",
            "X-Request-Id",
            "X-Whybox-Client",
            "Explain",
            "describe",
            "url_path",
            "Content-Type",
        ]
    ),
    st.one_of(
        st.sampled_from(["image/*;q=0", "text/html", "*/*;q=x", "True", "multipart/form-data"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.strip),
    ),
    max_size=3,
)


def as_json(value: object) -> bytes:
    """Text that a JSON parser may refuse: Python's has NaN and numbers of any size."""
    return json.dumps(value).encode()

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from handlers.endpoint.reading import AnswerOptions, parse_message
from handlers.images import PictureError
from handlers.schema import ExplainRequest, RequestError

BUFFER = io.BytesIO()
Image.new("RGB", (3, 2), (9, 8, 7)).save(BUFFER, "PNG")
PNG = BUFFER.getvalue()
DEFAULTS = ExplainRequest(score_threshold=0.75)


@pytest.mark.parametrize(
    "item",
    [
        {"body": bytearray(PNG), "method": "gradcam"},
        {"picture": bytearray(PNG), "method": bytearray(b"gradcam")},
        {"data": bytearray(PNG), "method": bytearray(b"gradcam")},
        {"body": {"picture": base64.b64encode(PNG).decode(), "method": "gradcam"}},
        {"body": {"picture": base64.encodebytes(PNG).decode(), "method": "gradcam"}},
        {"method": bytearray(b"gradcam"), "body": {"picture": base64.b64encode(PNG).decode()}},
    ],
)
def test_every_way_of_sending_a_picture(item: dict[str, Any]) -> None:
    message = parse_message(item, DEFAULTS)
    assert message.picture[:, 0, 0].tolist() == [9, 8, 7]
    assert message.request == ExplainRequest(method="gradcam", score_threshold=0.75)
    assert message.options == AnswerOptions()


@pytest.mark.parametrize(
    ("item", "error", "reason"),
    [
        ({}, RequestError, "picture: got None"),
        ({"method": b"odam"}, RequestError, "picture: got None"),
        ({"body": {"method": "odam"}}, RequestError, "picture: got None"),
        ({"body": {"picture": 7}}, RequestError, "picture: got 7"),
        ({"body": {"picture": "!"}}, PictureError, "not base64"),
        ({"body": "some text!"}, PictureError, "not base64"),
        ({"body": bytearray(b"{broken json")}, PictureError, "not a picture"),
        ({"body": bytearray()}, PictureError, "zero bytes"),
        ({"picture": PNG, "format": b"pdf"}, RequestError, "format: got 'pdf'; allowed: json, ov"),
        (
            {"picture": PNG, "methd": b"odam"},
            RequestError,
            "field: got 'methd'; allowed: picture, m",
        ),
        ({"picture": PNG, "method": [[[[[["x"]]]]]]}, RequestError, "method: got"),
        ({"picture": PNG, "x" * 100_000: b"\xff"}, RequestError, "field: got 'xxx"),
        (
            {"method": b"odam", "body": {"picture": "", "method": "gradcam"}},
            RequestError,
            "method: .* once: the JSON body has it, too",
        ),
        (
            {"picture": PNG, "time_limit": b"0"},
            RequestError,
            "time_limit: .* above 0, at most 3600",
        ),
        (
            {"picture": PNG, "over_limit": b"x"},
            RequestError,
            "over_limit: got 'x'; allowed: refuse",
        ),
        ({"picture": PNG, "method": b"\xff"}, RequestError, "UTF-8 text"),
        ({"picture": PNG, "save_raw": b"true"}, RequestError, "false over HTTP"),
        ({"picture": PNG, "candidates": b"101"}, RequestError, "0 to 100 over HTTP"),
        ({"picture": PNG, "layer": b"a,b,c,d,e,f,g,h,i"}, RequestError, "8 names over HTTP"),
        ({"picture": PNG, "box": b"1,2,3"}, RequestError, "box: got '1,2,3'; allowed: four num"),
        ({"picture": PNG, "box": b"9,9,1,1"}, RequestError, "x1 < x2 and y1 < y2"),
        ({"picture": PNG, "fuse": b"perhaps"}, RequestError, "fuse: .* true or false"),
        (
            {"body": {"picture": base64.b64encode(PNG).decode(), "format": ["x"]}},
            RequestError,
            "fo",
        ),
    ],
)
def test_bad_items(item: dict[str, Any], error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        parse_message(item, DEFAULTS)


def test_how_to_answer() -> None:
    fields = {"format": "npz", "time_limit": b"2.5", "over_limit": b"trim", "method": "gradcam"}
    message = parse_message({"picture": PNG, **fields}, DEFAULTS)
    assert message.options == AnswerOptions("npz", 2.5, "trim")
    assert message.request == ExplainRequest(method="gradcam", score_threshold=0.75)

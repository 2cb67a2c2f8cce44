from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.explainer import Explainer
from handlers.images import PictureError
from handlers.messages import (
    affordable,
    detections_json,
    explanations_json,
    explanations_npz,
    parse_message,
)
from handlers.schema import Detections, ExplainRequest, RequestError
from tests.conftest import random_picture

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
    ],
)
def test_every_way_of_sending_a_picture(item: dict[str, Any]) -> None:
    message = parse_message(item, DEFAULTS)
    assert message.picture[:, 0, 0].tolist() == [9, 8, 7]
    assert message.request == ExplainRequest(method="gradcam", score_threshold=0.75)
    assert message.format == "json"


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
        ({"picture": PNG, "methd": b"odam"}, RequestError, "field: got 'methd'"),
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


def test_detections_as_torchserve_users_know_them() -> None:
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [0.0, 0.0, 1.0, 1.0]])
    found = Detections(
        boxes, torch.tensor([2, 1, 2]), torch.tensor([0.75, 0.5, 0.25]), torch.arange(3), ("0",) * 3
    )
    answer = json.loads(detections_json(found, torch.tensor([0, 2]), ("background", "cat", "dog")))
    assert answer == [
        {"dog": [1, 2, 3, 4], "score": 0.75},
        {"dog": [0, 0, 1, 1], "score": 0.25},
    ]


def test_json_and_npz_hold_the_explanations(explainer: Explainer) -> None:
    picture = random_picture(140, 190)
    request = ExplainRequest(score_threshold=0.0, max_detections=3)
    explanations = explainer.explain([picture], request)[0]
    answer = json.loads(explanations_json(picture, explanations))
    arrays = np.load(io.BytesIO(explanations_npz(picture, explanations)), allow_pickle=False)
    assert answer["picture"] == {"width": 190, "height": 140}
    for place, (fields, each) in enumerate(zip(answer["explanations"], explanations, strict=True)):
        assert np.array_equal(arrays[f"heatmap_{place}"], each.heatmap.numpy())
        assert fields["box"] == list(each.box)
        assert fields["geometry"] == json.loads(str(arrays["geometries"][place]))
        assert fields["in_box"] is bool(arrays["in_box"][place]) is False
        heat = fields["heatmap"]
        levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(heat["png"]))))
        restored = levels / 255 * (heat["max"] - heat["min"]) + heat["min"]
        assert (
            np.abs(restored - each.heatmap.numpy()).max()
            <= (heat["max"] - heat["min"]) * 0.505 / 255
        )
    assert arrays["scores"].tolist() == [np.float32(each.score) for each in explanations]
    assert json.loads(explanations_json(picture, []))["explanations"] == []
    assert np.load(io.BytesIO(explanations_npz(picture, [])))["boxes"].shape == (0, 4)


def test_in_the_box_is_said_and_the_map_stays_whole(explainer: Explainer) -> None:
    picture = random_picture(140, 190)
    request = ExplainRequest(score_threshold=0.0, max_detections=2)
    plain, inside = (
        explainer.explain([picture], replace(request, normalize_in_box=value))[0]
        for value in (False, True)
    )
    for one, other in zip(plain, inside, strict=True):
        assert torch.equal(one.heatmap, other.heatmap)
        assert one.geometry == other.geometry
        assert not torch.equal(one.normalised(), other.normalised())
    fields = json.loads(explanations_json(picture, inside))["explanations"]
    assert [each["in_box"] for each in fields] == [True, True]
    assert np.load(io.BytesIO(explanations_npz(picture, inside)))["in_box"].tolist() == [True] * 2


@pytest.mark.parametrize(
    ("fields", "most", "text"),
    [
        ({"method": "drise", "masks": 1001}, 1, "1 to 1000 over HTTP"),
        ({"method": "scorecam", "layer": "a,b"}, 1, "one name over HTTP: scorecam"),
        ({"method": "fullgrad"}, 21, "max_detections: got 21; allowed: 1 to 20 over HTTP"),
        ({"method": "guidedgradcam"}, 100, "1 to 20 over HTTP"),
    ],
)
def test_what_costs_too_much(fields: dict[str, Any], most: int, text: str) -> None:
    with pytest.raises(RequestError, match=text):
        affordable(ExplainRequest(**fields), most)


def test_masks_that_nobody_counted_are_as_many_as_are_allowed() -> None:
    assert affordable(ExplainRequest("dclose"), 5).masks == 1000
    assert affordable(ExplainRequest("fullgrad"), 20) == ExplainRequest("fullgrad")
    assert affordable(ExplainRequest("odam", layer="a,b"), 100).masks is None

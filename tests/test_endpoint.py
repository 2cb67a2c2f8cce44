"""The real TorchServe with the demo's archive, asked as its users ask it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import numpy as np
import pytest
import requests
from PIL import Image
from torch import Tensor

from archives.serving.server import Server
from handlers.endpoint.json_schema import schemas
from handlers.explainer import Explainer, ExplainRequest
from handlers.images import to_image
from handlers.render import encode_jpeg, overlay_all
from tests.conftest import scene_picture

pytestmark = pytest.mark.server


def png(picture: Tensor) -> bytes:
    buffer = io.BytesIO()
    to_image(picture).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = scene_picture(0)
PNG = png(PICTURE)
BASE64 = base64.b64encode(PNG).decode()


def post(endpoint: Server, verb: str, **arguments: Any) -> requests.Response:
    return post_to(endpoint, f"{verb}/demo", **arguments)


def post_to(
    endpoint: Server,
    path: str,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60,
    **arguments: Any,
) -> requests.Response:
    token = {"Authorization": f"Bearer {endpoint.inference_token}"}
    url = f"{endpoint.inference_url}/{path}"
    with requests.Session() as session:
        session.trust_env = False
        return session.post(url, headers={**token, **(headers or {})}, timeout=timeout, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"data": PNG}, {"files": {"picture": PNG}}, {"json": {"picture": BASE64}}],
    ids=["raw", "multipart", "json"],
)
def test_predictions(endpoint: Server, demo: Explainer, arguments: dict[str, Any]) -> None:
    answer = post(endpoint, "predictions", **arguments)
    assert answer.headers["content-type"] == "application/json"
    found = demo.detect([PICTURE])[0]
    good = int((found.scores >= 0.5).sum())
    rows = answer.json()
    assert len(rows) == good > 0
    for row, box, label, score in zip(
        rows, found.boxes[:good], found.labels, found.scores, strict=False
    ):
        assert row["score"] == pytest.approx(float(score), abs=1e-4)
        assert row[demo.categories[int(label)]] == pytest.approx(box.tolist(), abs=0.05)


def test_explanations_with_fields(endpoint: Server, demo: Explainer) -> None:
    fields = {"method": "gradcam", "target": "x1", "score_threshold": "0.3", "max_detections": "2"}
    answer = post(endpoint, "explanations", files={"picture": PNG}, data=fields).json()
    request = ExplainRequest("gradcam", "x1", score_threshold=0.3, max_detections=2)
    expected = demo.explain([PICTURE], request)[0]
    assert answer["picture"] == {"width": PICTURE.shape[2], "height": PICTURE.shape[1]}
    assert len(answer["explanations"]) == len(expected) > 0
    for fields_of, each in zip(answer["explanations"], expected, strict=True):
        assert (fields_of["method"], fields_of["target"]) == ("gradcam", "x1")
        heat = fields_of["heatmap"]
        levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(heat["png"]))))
        restored = levels / 255 * (heat["max"] - heat["min"]) + heat["min"]
        tolerance = (heat["max"] - heat["min"]) * (0.505 / 255 + 1e-3)
        assert np.abs(restored - each.heatmap.numpy()).max() <= tolerance


@pytest.mark.parametrize(
    ("verb", "fields", "schema"),
    [
        ("explanations", {}, "explanations"),
        ("explanations", {"layer": "emitting,roi", "fuse": True, "box": [1, 2, 90, 90]}, ""),
        ("explanations", {"sum_boxes": True, "over_limit": "trim", "time_limit": 60}, ""),
        ("explanations", {"method": "eigencam", "score_threshold": 1}, ""),
        ("predictions", {"max_detections": 2}, "predictions"),
        ("predictions", {"format": "overlay"}, "error"),
        ("explanations", {"method": "gradcamm"}, "error"),
    ],
)
def test_requests_and_answers_are_as_their_schemas_say(
    endpoint: Server, verb: str, fields: dict[str, Any], schema: str
) -> None:
    body = {"picture": BASE64, **fields}
    answer = post(endpoint, verb, json=body)
    assert (answer.status_code == 400) is (schema == "error")
    known = schemas()
    jsonschema.validate(answer.json(), known[schema or "explanations"])
    jsonschema.validate(body, known["explain-request"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**body, "methd": "odam"}, known["explain-request"])


def test_overlay_is_the_rendered_picture(endpoint: Server, demo: Explainer) -> None:
    answer = post(endpoint, "explanations", files={"picture": PNG}, data={"format": "overlay"})
    assert answer.headers["content-type"] == "image/jpeg"
    ours = encode_jpeg(overlay_all(PICTURE, demo.explain([PICTURE])[0]))
    pixels = [
        np.asarray(Image.open(io.BytesIO(data)), dtype=float) for data in (ours, answer.content)
    ]
    assert np.abs(pixels[0] - pixels[1]).mean() < 0.5


def ask_kserve(endpoint: Server, path: str, body: dict[str, Any]) -> Any:
    answer = post_to(endpoint, path, json=body)
    assert answer.status_code == 200, answer.text[:300]
    return answer.json()


def test_kserve_v1(endpoint: Server) -> None:
    instances = [{"picture": BASE64}, {"picture": "!"}, {"picture": BASE64, "method": "gradcam"}]
    predicted = ask_kserve(endpoint, "v1/models/demo:predict", {"instances": instances[:1]})
    assert predicted == {"predictions": [post(endpoint, "predictions", data=PNG).json()]}
    explained = ask_kserve(endpoint, "v1/models/demo:explain", {"instances": instances})
    first, wrong, third = explained["explanations"]
    jsonschema.validate(first, schemas()["explanations"])
    assert wrong["error"]["type"] == "PictureError"
    assert {each["method"] for each in third["explanations"]} == {"gradcam"}


def test_kserve_v2(endpoint: Server) -> None:
    tensor = {"name": "picture", "shape": [2], "datatype": "BYTES", "data": [BASE64] * 2}
    body = {"id": "seven", "inputs": [tensor], "parameters": {"max_detections": 1}}
    predicted = ask_kserve(endpoint, "v2/models/demo/infer", body)
    assert (predicted["id"], predicted["model_name"]) == ("seven", "demo")
    assert predicted["outputs"][0]["shape"] == [2]
    rows = [json.loads(text) for text in predicted["outputs"][0]["data"]]
    assert rows[0] == rows[1] == post(endpoint, "predictions", data=PNG).json()[:1]
    explained = ask_kserve(endpoint, "v2/models/demo/explain", body)["outputs"][0]
    assert explained["name"] == "explanations"
    assert len(json.loads(explained["data"][1])["explanations"]) == 1


def test_describe(endpoint: Server, demo: Explainer) -> None:
    answer = requests.get(
        f"{endpoint.management_url}/models/demo?customized=true",
        headers={"Authorization": f"Bearer {endpoint.management_token}"},
        timeout=60,
    )
    described = answer.json()[0]["customizedMetadata"]
    jsonschema.validate(described, schemas()["description"])
    assert demo.manifest is not None
    assert described["digest"] == demo.manifest.digest
    assert described["categories"] == list(demo.categories[1:])
    assert described["methods"] == demo.methods


# Requests that differ in every way, and what each must get whoever its neighbours are.
MIXED: list[tuple[str, dict[str, Any], int, str]] = [
    ("predictions", {"data": PNG}, 200, '"score"'),
    ("explanations", {"data": PNG}, 200, '"heatmap"'),
    ("explanations", {"data": b"no picture"}, 400, "not a picture"),
    ("predictions", {"data": PNG[:2000]}, 400, "damaged or truncated"),
    ("explanations", {"json": {"picture": BASE64, "method": "gradcamm"}}, 400, "eigencam"),
    ("explanations", {"json": {"picture": BASE64, "category": "dragon"}}, 400, "mushroom"),
    ("explanations", {"json": {"picture": BASE64, "methd": "odam"}}, 400, "field: got 'methd'"),
    ("explanations", {"json": {"method": "odam"}}, 400, "picture: got None"),
    ("explanations", {"data": png(scene_picture(0)[:, :1].repeat(1, 1, 4))}, 400, "too narrow"),
    ("explanations", {"json": {"picture": BASE64, "method": "gradcam"}}, 200, '"gradcam"'),
    ("explanations", {"files": {"picture": PNG}, "data": {"format": "npz"}}, 200, "PK"),
    ("predictions", {"data": b""}, 400, "picture"),
    ("predictions", {"json": {"picture": BASE64, "format": "npz"}}, 400, "json, for predictions"),
]


def test_each_of_a_batch_gets_its_own_answer(endpoint: Server) -> None:
    # While one batch is worked on the next requests gather, so that most of these share batches.
    wanted = MIXED * 3
    with ThreadPoolExecutor(30) as pool:  # more would be too many for the queue
        answers = list(pool.map(lambda each: post(endpoint, each[0], **each[1]), wanted))
    for (verb, _, status, text), answer in zip(wanted, answers, strict=True):
        assert answer.status_code == status, (verb, text, answer.text[:300])
        assert text in answer.content[:2_000_000].decode(errors="replace")
        if status == 400:
            assert answer.json()["error"]["type"] in ("PictureError", "RequestError")

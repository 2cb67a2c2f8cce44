from __future__ import annotations

import json
from typing import Any

import pytest

from handlers.endpoint.items import EXPLAIN, PREDICT, Item
from handlers.endpoint.kserve import opened
from handlers.endpoint.writing import Answer
from handlers.fields import RequestError

MODEL = ("small", "1.0")
FIRST, SECOND = Answer(b'{"a": 1}'), Answer(b'{"error": {}}', status=400)


def tensor(name: str, *data: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": list(data)}


def test_other_requests_stay_as_they_are() -> None:
    item = Item(PREDICT, {"body": {"picture": "x"}})
    found = opened(item, MODEL)
    assert found.items == [item]
    assert found.fold([SECOND]) is SECOND


@pytest.mark.parametrize(
    ("verb", "body", "name"),
    [
        (
            PREDICT,
            {
                "instances": [{"picture": "x", "method": "odam"}, {"picture": "y"}],
                "parameters": {"method": "gradcam", "target": "x1"},
            },
            "predictions",
        ),
        (
            EXPLAIN,
            {
                "inputs": [tensor("picture", "x", "y"), tensor("method", "odam", "gradcam")],
                "parameters": {"target": "x1"},
            },
            "explanations",
        ),
        (
            EXPLAIN,
            {
                "inputs": [
                    tensor("data", "x", "y"),
                    tensor("method", "odam", "gradcam"),
                    tensor("target", "x1"),
                ]
            },
            "explanations",
        ),
    ],
)
def test_pictures_with_their_fields(verb: str, body: dict[str, Any], name: str) -> None:
    found = opened(Item(verb, {"body": body}, "*/*"), MODEL)
    fields = [each.fields["body"] for each in found.items]
    assert [each.get("picture", each.get("data")) for each in fields] == ["x", "y"]
    assert [each["method"] for each in fields] == ["odam", "gradcam"]
    assert [each["target"] for each in fields] == ["x1", "x1"]
    assert {(each.verb, each.accept, each.sharers) for each in found.items} == {(verb, "*/*", 2)}
    answer = found.fold([FIRST, SECOND])
    values = json.loads(answer.body)
    assert answer.status == 200
    if "instances" in body:
        assert values == {name: [{"a": 1}, {"error": {}}]}
        return
    (output,) = values["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == (name, [2], "BYTES")
    assert [json.loads(text) for text in output["data"]] == [{"a": 1}, {"error": {}}]
    assert (values["model_name"], values["model_version"]) == MODEL


def test_an_id_comes_back_and_errors_have_their_status() -> None:
    found = opened(Item(PREDICT, {"body": {"id": "7", "inputs": [tensor("picture", "x")]}}), MODEL)
    answer = found.fold([SECOND])
    assert (answer.status, json.loads(answer.body)["id"]) == (400, "7")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": []}, "instances: got .* 1 to 32 objects"),
        ({"instances": [{}] * 33}, "1 to 32 objects"),
        ({"instances": ["x"]}, "1 to 32 objects"),
        ({"instances": [{}], "signature_name": "x"}, "field: got 'signature_name'"),
        ({"instances": [{}], "parameters": []}, "parameters: .* an object of fields"),
        ({"instances": [{"format": "npz"}]}, "format: got 'npz'; allowed: json, in KServe"),
        ({"inputs": {}}, "inputs: .* one is named picture"),
        ({"inputs": [tensor("image", "x")]}, "one is named picture"),
        ({"inputs": [{"data": ["x"]}]}, "one is named picture"),
        ({"inputs": [tensor("picture")]}, "picture: .* with its values in a list"),
        ({"inputs": [tensor("picture", "x"), tensor("picture", "y")]}, "one tensor of that name"),
        (
            {"inputs": [tensor("picture", "x", "y", "z"), tensor("method", "a", "b")]},
            "method: .* one value, or 3",
        ),
    ],
)
def test_shapes_that_are_wrong(body: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        opened(Item(PREDICT, {"body": body}), MODEL)

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from handlers import time_limit
from handlers.detectors.base import Inputs
from handlers.endpoint import batch as module
from handlers.endpoint import reading
from handlers.endpoint.batch import Endpoint
from handlers.endpoint.items import DESCRIBE, EXPLAIN, PREDICT, Item
from handlers.endpoint.object_reference import (
    ForbiddenBucketError,
    MissingObjectError,
    StoreError,
)
from handlers.endpoint.settings import Settings
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest, RequestError
from tests.conftest import random_picture


def png(picture: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


WIDE, TALL, SAME = (
    random_picture(100, 150),
    random_picture(150, 100, 1),
    random_picture(100, 150, 2),
)
SOME: dict[str, Any] = {"score_threshold": 0.0, "max_detections": 3}


def item(verb: str, picture: Tensor, accept: str = "", **fields: Any) -> Item:
    text = base64.b64encode(png(picture)).decode()
    return Item(verb, {"body": {"picture": text, **SOME, **fields}}, accept)


@pytest.fixture
def endpoint(explainer: Explainer) -> Endpoint:
    return Endpoint(explainer, Settings())


MIXED = [
    item(EXPLAIN, WIDE),
    item(PREDICT, SAME),
    item(EXPLAIN, TALL, method="gradcam", max_detections=2),
    item(EXPLAIN, SAME, format="npz", target="x1"),
    item(PREDICT, WIDE, score_threshold=0.1),
    Item(EXPLAIN, {"body": b"no picture"}),
    item(EXPLAIN, WIDE, method="eigencam", format="overlay", accept="image/png"),
    item(EXPLAIN, TALL, layer="neck"),
    item(EXPLAIN, WIDE, format="overlay", accept="text/html"),
]


def test_each_gets_what_it_would_get_alone(endpoint: Endpoint) -> None:
    together = endpoint.answer(MIXED)
    alone = [endpoint.answer([each])[0] for each in MIXED]
    assert [each.status for each in together] == [200, 200, 200, 200, 200, 400, 200, 400, 406]
    for one, other in zip(together, alone, strict=True):
        assert (one.status, one.content_type) == (other.status, other.content_type)
        if one.content_type == "application/json" and one.status == 200:
            _assert_close(json.loads(one.body), json.loads(other.body))


def _assert_close(one: Any, other: Any) -> None:
    """The same but for the rounding of another batch; of heatmaps the ranges."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one.keys() - {"png"}:
            _assert_close(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for each, another in zip(one, other, strict=True):
            _assert_close(each, another)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=2e-3, abs=0.05)
    else:
        assert one == other


def test_pictures_of_one_size_share_a_forward_pass(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    find = endpoint.explainer.network.find

    def counted(inputs: Inputs) -> Any:
        sizes.append(len(inputs.tensors))
        return find(inputs)

    monkeypatch.setattr(endpoint.explainer.network, "find", counted)
    assert [each.status for each in endpoint.answer(MIXED)].count(200) == 6
    assert sorted(sizes) == [1, 5]  # WIDE and SAME, whatever is asked of them; TALL


def test_answers_are_those_of_the_explainer(endpoint: Endpoint) -> None:
    answer = json.loads(
        endpoint.answer([item(EXPLAIN, WIDE, method="layercam", smooth=0.1)])[0].body
    )
    request = ExplainRequest(method="layercam", smooth=0.1, score_threshold=0.0, max_detections=3)
    expected = endpoint.explainer.explain([WIDE], request)[0]
    assert [each["box"] for each in answer["explanations"]] == [list(each.box) for each in expected]
    assert answer["request"] | {"smooth": 0.1, "method": "layercam"} == answer["request"]
    largest = [each["heatmap"]["max"] for each in answer["explanations"]]
    assert largest == pytest.approx([float(each.heatmap.max()) for each in expected])


def failing(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the network fails on SAME."""
    find = endpoint.explainer.network.find

    def fail(inputs: Inputs) -> Any:
        for tensors in inputs.tensors:
            if torch.equal(tensors, endpoint.explainer.prepare(SAME).tensors[0]):
                raise RuntimeError("cannot take it")
        return find(inputs)

    monkeypatch.setattr(endpoint.explainer.network, "find", fail)


def test_a_picture_that_the_network_fails_on_fails_alone(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(endpoint, monkeypatch)
    answers = endpoint.answer([item(PREDICT, WIDE), item(PREDICT, SAME), item(EXPLAIN, TALL)])
    assert [each.status for each in answers] == [200, 500, 200]
    assert b"cannot take it" not in answers[1].body  # that is for the log


class Slow:
    """Stands in for the explainer's explain_found: each box takes a second, each mask a tenth."""

    def __init__(self, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.requests = 1000.0, list[ExplainRequest]()
        self.explain = endpoint.explainer.explain_found
        monkeypatch.setattr(time_limit, "time", self)
        monkeypatch.setattr(module, "time", self)
        monkeypatch.setattr(endpoint.explainer, "explain_found", self.explain_found)

    def monotonic(self) -> float:
        return self.now

    def explain_found(self, found: Any, request: ExplainRequest) -> Any:
        self.requests.append(request)
        if request.method == "drise":
            steps, seconds = range(request.masks or 0), 0.1
        else:
            steps, seconds = range(len(found.kept.entries.labels[: request.max_detections])), 1.0
        for _ in time_limit.on_time([[step] for step in steps], len(steps)):
            self.now += seconds
        return self.explain(found, replace(request, method="odam"))


@pytest.mark.parametrize(
    ("fields", "status", "trimmed"),
    [
        ({"time_limit": 3}, 200, {}),
        ({"time_limit": 2.5}, 422, {}),
        ({"time_limit": 2.9, "max_detections": 4, "over_limit": "trim"}, 422, {}),  # after two
        (
            {"time_limit": 3.9, "max_detections": 4, "over_limit": "trim"},
            200,
            {"max_detections": 1},
        ),
        ({"time_limit": 0.5, "over_limit": "trim"}, 422, {}),  # not one box
        ({"method": "drise", "time_limit": 101}, 200, {}),  # 1000 masks
        ({"method": "drise", "masks": 500, "time_limit": 40}, 422, {}),
        ({"method": "drise", "time_limit": 50, "over_limit": "trim"}, 200, {"masks": 398}),
        ({"sum_boxes": True, "time_limit": 2.5, "over_limit": "trim"}, 422, {}),
    ],
)
def test_what_takes_too_long_is_refused_or_trimmed(
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    status: int,
    trimmed: dict[str, int],
) -> None:
    endpoint.settings = Settings(timeout=1000)
    slow = Slow(endpoint, monkeypatch)
    (answer,) = endpoint.answer([item(EXPLAIN, WIDE, **fields)])
    assert answer.status == status, answer.body
    # Clear after the second box or mask.
    assert slow.now - 1000 <= fields["time_limit"] + 1
    parsed = json.loads(answer.body)
    if status == 200:
        assert parsed["trimmed"] == trimmed
        assert parsed["request"] | trimmed == parsed["request"]
    else:
        assert parsed["error"]["type"] == "TooCostlyError"
        assert f"there are {fields['time_limit']:.3g} s for it" in parsed["error"]["message"]


def test_a_batch_shares_the_servers_time(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.settings = Settings(timeout=10)  # of which 8 s may be used
    slow = Slow(endpoint, monkeypatch)
    quick: dict[str, Any] = {"max_detections": 1}
    answers = endpoint.answer(
        [
            item(EXPLAIN, WIDE, **quick),  # 1 s of 8/4
            item(PREDICT, WIDE),  # takes no share
            item(EXPLAIN, SAME),  # 3 s of 7/3 are too many, found out after 2
            item(EXPLAIN, WIDE, **quick),  # 1 s of 5/2
            item(EXPLAIN, SAME),  # 3 s of 4
        ]
    )
    assert [each.status for each in answers] == [200, 200, 422, 200, 200]
    assert slow.now - 1000 == pytest.approx(7.0)


def test_a_failed_pass_changes_no_share(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.settings = Settings(timeout=5)  # 4 s, of which each has 2
    Slow(endpoint, monkeypatch)
    failing(endpoint, monkeypatch)
    answers = endpoint.answer([item(EXPLAIN, WIDE), item(EXPLAIN, TALL), item(PREDICT, SAME)])
    assert [each.status for each in answers] == [422, 422, 500]


def test_a_mask_count_is_filled_in(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint.settings = Settings(timeout=1e6)
    slow = Slow(endpoint, monkeypatch)
    (answer,) = endpoint.answer([item(EXPLAIN, WIDE, method="drise")])
    assert slow.requests[0].masks == json.loads(answer.body)["request"]["masks"] == 1000


def test_an_answer_that_cannot_be_made_smaller_is_refused(endpoint: Endpoint) -> None:
    endpoint.settings = Settings(max_response_size=300)
    answers = endpoint.answer([item(PREDICT, WIDE), item(EXPLAIN, WIDE), Item(DESCRIBE, {})])
    assert [each.status for each in answers] == [422, 422, 500]  # which has no archive to describe
    assert b"and the server sends 300: ask for fewer boxes" in answers[0].body


def test_the_first_request_is_not_the_first_explanation(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[ExplainRequest] = []

    def refused(pictures: Any, request: ExplainRequest) -> None:
        asked.append(request)
        raise RequestError("method", "odam", "eigencam")

    endpoint.warm_up()
    monkeypatch.setattr(endpoint.explainer, "explain", refused)
    endpoint.warm_up()
    assert asked == [
        replace(endpoint.explainer.defaults, score_threshold=0.0, candidates=1, masks=1)
    ]
    assert "first explanation, by the archive's defaults, failed: method: got" in caplog.text


@pytest.mark.parametrize(
    ("config", "environment", "expected"),
    [
        (None, {}, Settings(120, 6_553_500)),
        ({"responseTimeout": 30}, {"WHYBOX_MAX_RESPONSE_SIZE": "999"}, Settings(30, 999)),
        ({"whybox": {"buckets": ["a", "b"]}}, {}, Settings(buckets=("a", "b"))),
    ],
)
def test_settings(config: Any, environment: dict[str, str], expected: Settings) -> None:
    assert Settings.of(config, environment) == expected
    with pytest.raises(ValueError, match="expected numbers above zero"):
        Settings.of({"responseTimeout": 0}, {})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ForbiddenBucketError("picture", "s3://a/b", "c"), 403),
        (MissingObjectError("picture", "s3://a/b", "c"), 404),
        (StoreError("down"), 502),
        (RequestError("picture", "s3://a", "c"), 400),
    ],
)
def test_references_that_fail(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def failing(reference: str, buckets: Any) -> bytes:
        raise error

    monkeypatch.setattr(reading, "read_object", failing)
    bad = Item(EXPLAIN, {"body": {"picture": "s3://a/b", **SOME}})
    answers = endpoint.answer([item(PREDICT, WIDE), bad])
    assert [each.status for each in answers] == [200, status]
    assert json.loads(answers[1].body)["error"]["type"] == type(error).__name__


@pytest.mark.parametrize(
    "text", ["s3://open/a.png", b"s3://open/a.png", bytearray(b" s3://open/a.png\n")]
)
def test_a_reference_is_a_picture(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, text: Any
) -> None:
    asked: list[Any] = []

    def read(reference: str, buckets: Any) -> bytes:
        asked.append((reference, buckets))
        return png(WIDE)

    monkeypatch.setattr(reading, "read_object", read)
    endpoint.settings = Settings(buckets=("open",))
    (answer,) = endpoint.answer([Item(PREDICT, {"picture": text, **SOME})])
    (expected,) = endpoint.answer([item(PREDICT, WIDE)])
    assert answer == expected
    assert asked == [("s3://open/a.png", ("open",))]


def test_error_names_the_field(endpoint: Endpoint) -> None:
    (answer,) = endpoint.answer([item(EXPLAIN, WIDE, method="gradcamm")])
    error = json.loads(answer.body)["error"]
    assert (error["type"], error["field"]) == ("RequestError", "method")
    assert "allowed: ablationcam" in error["message"]

from __future__ import annotations

from typing import Any

import pytest

from handlers.schema import ExplainRequest, RequestError


def test_fields_from_text_and_json() -> None:
    text = {"method": "gradcam", "score_threshold": "0.25", "max_detections": "7"}
    expected = ExplainRequest(method="gradcam", score_threshold=0.25, max_detections=7)
    assert ExplainRequest.from_fields(text) == expected
    assert (
        ExplainRequest.from_fields({"score_threshold": 0.25, "layer": None}, expected) == expected
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methd": "odam"}, "field: got 'methd'; allowed: method, target, layer"),
        ({"method": ""}, "method: got ''; allowed: a non-empty string"),
        ({"method": 3}, "method: got 3"),
        ({"score_threshold": "high"}, "score_threshold: got 'high'; allowed: a number from 0 to 1"),
        ({"score_threshold": 1.5}, "score_threshold: got 1.5; allowed: a number from 0 to 1"),
        ({"score_threshold": "nan"}, "score_threshold: got nan"),
        ({"score_threshold": True}, "score_threshold: got True"),
        ({"max_detections": 0}, "max_detections: got 0; allowed: an integer from 1 to 10000"),
        ({"max_detections": 2.5}, "max_detections: got 2.5"),
        ({"max_detections": [1]}, r"max_detections: got \[1\]"),
        ({"category": "x" * 500}, None),
    ],
)
def test_wrong_fields(fields: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert ExplainRequest.from_fields(fields).category == "x" * 500
        return
    with pytest.raises(RequestError, match=message):
        ExplainRequest.from_fields(fields)


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(str(RequestError("picture", "x" * 10_000, "bytes"))) < 150

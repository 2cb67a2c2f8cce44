from __future__ import annotations

import io

import numpy as np
import pytest

from archives.golden import Answer, Golden
from archives.serving.endpoint_check import NoAnswerError, OtherAnswerError, ask, check, read_answer
from archives.serving.server import Server
from handlers.explainer import Explainer, ExplainRequest
from tests.test_endpoint import PICTURE, PNG

REQUEST = {"method": "layercam", "layer": "emitting", "max_detections": 2, "category": None}


def test_what_is_no_answer() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, boxes=np.zeros((1, 4)), labels=np.array([1]), scores=np.array([0.5]))
    for data in (b"", b"{}", buffer.getvalue()):
        with pytest.raises(NoAnswerError, match=r"no whole \.npz"):
            read_answer(data)


def test_nobody_there() -> None:
    with pytest.raises(NoAnswerError, match=r"/explanations/a%2Fb/1\.0 did not answer") as caught:
        ask("http://127.0.0.1:9", "secret", "a/b", "1.0", PNG, {}, 1)
    assert "secret" not in str(caught.value)


@pytest.mark.server
def test_the_golden_sample_through_the_endpoint(endpoint: Server, demo: Explainer) -> None:
    request = ExplainRequest("layercam", score_threshold=0.5, max_detections=2)
    explained = demo.explain([PICTURE], request)[0]
    expected = Answer(
        np.array([each.box for each in explained], np.float64),
        np.array([each.label for each in explained]),
        np.array([each.score for each in explained], np.float64),
        tuple(each.heatmap.numpy() for each in explained),
    )
    golden = Golden(PNG, REQUEST, expected)
    where = (endpoint.inference_url, endpoint.inference_token, "demo", "1.0")
    check(*where, golden, 60)
    found = ask(*where, PNG, REQUEST, 60)
    assert len(found.heatmaps) == len(found.labels) == 2
    other = Answer(found.boxes, found.labels + 1, found.scores, found.heatmaps)
    with pytest.raises(OtherAnswerError, match=r"demo 1\.0 explains its golden sample otherwise"):
        check(*where, Golden(PNG, REQUEST, other), 60)
    with pytest.raises(NoAnswerError, match=r"status 400: .*\"method\""):
        ask(*where, PNG, {"method": "none"}, 60)

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from ts.context import Context, RequestProcessor

from archives.verify import extract
from handlers.explain_handler import ExplainHandler
from tests.test_endpoint import BASE64, PNG


@pytest.fixture(scope="module")
def handler(demo_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> ExplainHandler:
    folder = tmp_path_factory.mktemp("model") / "demo"
    extract(demo_archive, folder)
    loaded = ExplainHandler()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the code here is the archive's
        loaded.initialize(Context("demo", str(folder), {}, 8, None, "0.12"))
    return loaded


def ask(
    handler: ExplainHandler, batch: list[tuple[dict[str, Any], dict[str, str]]]
) -> list[tuple[int, Any]]:
    """Status and parsed JSON for each (item, headers), all in one batch."""
    context = Context("demo", "", {}, 8, None, "0.12")
    processors = [RequestProcessor(dict(headers)) for _, headers in batch]
    context.request_processor = processors
    bodies = handler.handle([item for item, _ in batch], context)
    return [
        (processor.get_response_status_code(), json.loads(body))
        for processor, body in zip(processors, bodies, strict=True)
    ]


EXPLAIN, DESCRIBE = {"explain": "True"}, {"describe": "True"}
PICTURE = {"body": bytearray(PNG)}


def test_a_batch_of_everything(handler: ExplainHandler) -> None:
    answers = ask(
        handler,
        [
            (PICTURE, {}),
            (PICTURE, EXPLAIN),
            ({"body": bytearray(PNG[:999])}, EXPLAIN),
            ({}, DESCRIBE),
            ({"body": {"picture": BASE64, "layer": "roi"}}, EXPLAIN),
            ({"body": {"picture": BASE64, "layer": "neck"}}, EXPLAIN),
            # A client's own header comes beside TorchServe's; only the exact key counts.
            (PICTURE, {"Explain": "True"}),
        ],
    )
    assert [status for status, _ in answers] == [200, 200, 400, 200, 200, 400, 200]
    predicted, explained, broken, described, roi, unknown, header = (each for _, each in answers)
    assert predicted == header
    assert len(explained["explanations"]) == len(predicted) > 0
    assert broken["error"]["type"] == "PictureError"
    assert described["name"] == "demo"
    assert described["defaults"]["method"] == "odam"
    assert described["defaults"]["smooth"] == 0.2
    assert described["layers"] == ["emitting", "roi", "pyramid", "C2", "C3", "C4", "C5"]
    assert {each["heatmap"]["width"] for each in roi["explanations"]} == {7}
    assert "emitting, roi" in unknown["error"]["message"]


def test_a_bug_spares_the_neighbours_and_tells_no_internals(
    handler: ExplainHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a secret path")

    monkeypatch.setattr(handler.endpoint.explainer, "explain_found", fail)
    (first, wrong), (second, right) = ask(handler, [(PICTURE, EXPLAIN), (PICTURE, {})])
    assert (first, second) == (500, 200)
    assert "secret" not in json.dumps(wrong)
    assert len(right) > 0

"""Thousands of mutated requests to the handler, in batches with one that is right."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ts.context import Context, RequestProcessor

from archives.verify import extract
from handlers.explain_handler import ExplainHandler
from tests.bad_input.requests import HEADERS, bodies, encoded, form_fields, pictures

STATUSES = {200, 400, 403, 404, 406, 422}
# With a threshold so low that it answers with boxes.
RIGHT: Any = ({"picture": encoded("PNG"), "score_threshold": b"0.1"}, {}, "")
SECONDS = 0.5  # of a batch: a request may ask for masks without end
OPTIONS: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
ITEMS = st.one_of(
    st.builds(lambda data: {"body": bytearray(data)}, pictures()),
    st.builds(lambda fields: {"body": fields}, bodies()),
    form_fields(),
    st.builds(lambda text: {"body": text}, st.text(max_size=40)),
    st.just({}),
)
BATCHES = st.lists(
    st.tuples(ITEMS, HEADERS, st.sampled_from(["", "explain", "explain", "describe"])),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def handler(demo_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> ExplainHandler:
    folder = tmp_path_factory.mktemp("bad-input") / "demo"
    extract(demo_archive, folder)
    loaded = ExplainHandler()
    loaded.initialize(Context("demo", str(folder), {}, 8, None, "0.12"))
    loaded.endpoint.settings = replace(loaded.endpoint.settings, timeout=SECONDS)
    resize: Any = loaded.endpoint.explainer.detector.model.transform
    resize.min_size, resize.max_size = (64,), 96  # it is about requests: a quick pass will do
    return loaded


def ask(handler: ExplainHandler, batch: list[Any]) -> list[tuple[int, str, bytes]]:
    context = Context("demo", "", {}, 8, None, "0.12")
    processors = []
    for fields, headers, verb in batch:
        # As ts.service does: what describes a field stands under its name among the headers.
        described: dict[str, Any] = {name: {"content-type": "text/plain"} for name in fields}
        own = {verb: "True"} if verb else {}
        processors.append(RequestProcessor({**described, **headers, **own}))
    context.request_processor = processors
    context.request_ids = {place: str(place) for place in range(len(batch))}
    answers = handler.handle([item for item, _, _ in batch], context)
    assert len(answers) == len(batch)
    return [
        (each.get_response_status_code(), each.get_response_headers()["content-type"], body)
        for each, body in zip(processors, answers, strict=True)
    ]


def check(handler: ExplainHandler, batch: list[Any], place: int) -> None:
    """Mutated requests around one that is right, at `place`, which no neighbour disturbs."""
    batch = [*batch[:place], RIGHT, *batch[place:]]
    answers = ask(handler, batch)
    for status, content_type, body in answers:
        assert status in STATUSES, body[:300]
        if status != 200:
            reason = json.loads(body)
            # KServe's shapes answer each picture with its own error.
            assert content_type == "application/json"
            assert "error" in reason or reason.keys() & {"explanations", "predictions", "outputs"}
            assert len(body) < 10_000
    # The detector's numbers depend on what shares its pass, in their last digits.
    (expected,) = known(handler)
    mine = answers[min(place, len(batch) - 1)]
    assert mine[:2] == expected[:2]
    rows = [json.loads(each) for each in (mine[2], expected[2])]
    assert rows[1], "a request without an answer's boxes compares nothing"
    assert [row.keys() for row in rows[0]] == [row.keys() for row in rows[1]]
    for one, other in zip(*rows, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=0.01)


@functools.cache
def known(handler: ExplainHandler) -> list[tuple[int, str, bytes]]:
    """The answer of the request that is right."""
    return ask(handler, [RIGHT])


@settings(max_examples=40, derandomize=True, **OPTIONS)
@given(batch=BATCHES, place=st.integers(0, 4))
def test_some_mutated_requests(handler: ExplainHandler, batch: list[Any], place: int) -> None:
    check(handler, batch, place)


@pytest.mark.full
@pytest.mark.timeout(4 * 3600)
def test_ten_thousand_mutated_requests(handler: ExplainHandler) -> None:
    asked = 0

    @settings(max_examples=4000, **OPTIONS)
    @given(batch=BATCHES, place=st.integers(0, 4))
    def run(batch: list[Any], place: int) -> None:
        nonlocal asked
        asked += len(batch)
        check(handler, batch, place)

    while asked < 10_000:
        run()

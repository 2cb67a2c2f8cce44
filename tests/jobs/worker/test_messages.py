"""What coordinator and workers tell each other survives the pipe."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.worker.messages import (
    EVENTS,
    SHEET,
    Advanced,
    Begun,
    Blame,
    Committed,
    Drawn,
    Ended,
    Event,
    Job,
    Ready,
    Sampled,
    ShardOrder,
    event_line,
    event_of,
)
from jobs.worker.serve import Teller

ALL_EVENTS: list[Event] = [
    Ready({"method": "odam", "box": [1.0, 2.0, 3.0, 4.0], "layer": None}, 2),
    Begun(3, 14, "decode"),
    Ended(3, 14),
    Advanced(8, 1, 0.5, 0.25, 0.125),
    Committed({"shard": 3, "categories": {"größe\n": 1}}),
    Sampled(16, 1.5),
    Drawn(True),
]


@pytest.mark.parametrize("event", ALL_EVENTS)
def test_an_event_is_one_line_and_comes_back(event: Event) -> None:
    line = event_line(event)
    assert line.count(b"\n") == 1
    assert event_of(line) == event


def test_every_kind_of_event_is_known() -> None:
    assert {type(each) for each in ALL_EVENTS} == set(EVENTS.values())
    line = b'{"event": "Begun", "shard": 3, "place": 14, "stage": "decode"}\n'
    assert event_line(Begun(3, 14, "decode")) == line


@pytest.mark.parametrize(
    "order",
    [
        ShardOrder(0),
        ShardOrder(70_000, (1, 5), (Blame(2, "decode", "SIGSEGV"), Blame(9, "render", "SIGKILL"))),
    ],
)
def test_an_order_comes_back_and_is_no_sheet(order: ShardOrder) -> None:
    line = order.to_line()
    assert line.endswith(b"}\n")
    assert line != SHEET
    assert ShardOrder.from_line(line) == order


@pytest.mark.parametrize(
    "job",
    [
        Job("s3://in/a", "s3://out", 10, 4, "none", "leases/all.json", "ab12"),
        Job("/in", "/out", 2, 1, "each", trial=("é.jpg", "not\udcff text\n.jpg")),
    ],
)
def test_a_job_comes_back(job: Job) -> None:
    assert Job.from_line(job.to_line()) == job


def test_lines_told_by_several_threads_stay_whole() -> None:
    reading, writing = os.pipe()
    told = [Committed({"shard": number, "names": ["x" * 5_000]}) for number in range(40)]
    with ThreadPoolExecutor(5) as pool, os.fdopen(reading, "rb") as pipe:
        lines = pool.submit(pipe.readlines)
        list(pool.map(Teller(writing).tell, told))
        os.close(writing)
        found = [event_of(line) for line in lines.result()]
    assert sorted(found, key=lambda each: json.loads(event_line(each))["stats"]["shard"]) == told

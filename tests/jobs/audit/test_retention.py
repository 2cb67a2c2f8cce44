"""Which days' runs there are, and how old ones go."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from archives.stores.opening import open_store
from jobs.audit.retention import days_runs, remove_old
from jobs.lease import ALL, Lease
from tests.conftest import put

TODAY = date(2026, 3, 10)
DONE = json.dumps({"status": "done"}).encode()


def days(place: str, **runs: bytes) -> str:
    """Runs by their day ("d03_01"), each with a shard's file; the output that names them."""
    for day, record in runs.items():
        name = f"2026-{day[1:].replace('_', '-')}"
        put(f"{place}/{name}", {"run.json": record, "shards/00000/stats.json": b"{}"})
    return f"{place}/{{date}}"


def keys(place: str) -> set[str]:
    return {each.key for each in open_store(place).entries()}


def test_runs_are_found_by_their_days(place: str) -> None:
    output = days(place, d03_09=DONE, d03_01=DONE, d03_10=DONE, d03_05=b'{"status": "running"}')
    put(f"{place}/2026-03-04", {"run.json": b"no JSON"})
    found = [each.day.day for each in days_runs(output, TODAY, days=12)]
    assert found == [1, 9]
    assert days_runs(place, TODAY) == []


def test_old_runs_go_and_nothing_else(place: str) -> None:
    output = days(place, d03_07=DONE, d03_05=DONE, d03_04=DONE, d02_01=b'{"status": "running"}')
    put(place, {"2026-03-03/notes.txt": b"mine", "readme.txt": b"mine"})
    removed = list(remove_old(output, TODAY, 5))
    assert [(each.day, problem) for each, problem in removed] == [(date(2026, 3, 4), "")]
    left = {name.split("/")[0] for name in keys(place)}
    assert left == {"2026-03-07", "2026-03-05", "2026-02-01", "2026-03-03", "readme.txt"}


def test_the_last_run_that_passed_is_left(place: str) -> None:
    output = days(place, d03_09=DONE, d03_03=DONE, d03_02=DONE, d03_01=DONE)
    for day, text in (("09", b"[]"), ("03", b'{"passed": false}'), ("02", b'{"passed": true}')):
        put(f"{place}/2026-03-{day}", {"audit.json": text})
    put(f"{place}/2026-03-01", {"audit.json": b'{"passed": true}'})
    removed = [each.day.day for each, _ in remove_old(output, TODAY, 5)]
    assert removed == [1, 3]
    # As soon as a later one has passed, be it today's, it goes.
    put(f"{place}/2026-03-10", {"run.json": DONE, "audit.json": b'{"passed": true}'})
    assert [each.day.day for each, _ in remove_old(output, TODAY, 5)] == [2]


def test_a_run_at_which_somebody_works_is_left(place: str) -> None:
    output = days(place, d03_01=DONE)
    before = keys(place)
    with Lease(open_store(f"{place}/2026-03-01"), ALL):
        ((run, problem),) = remove_old(output, TODAY, 5)
    assert run.day == date(2026, 3, 1)
    assert "at work since" in problem
    assert before <= keys(place)
    assert [problem for _, problem in remove_old(output, TODAY, 5)] == [""]
    if Path(place).exists():  # a folder
        assert not list(Path(place).iterdir())
    else:
        assert keys(place) == set()

"""The status of runs whose files are written by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from archives.errors import ConflictError, UsageError
from archives.stores.opening import open_store
from jobs.lease import Holder
from jobs.options import StatusOptions
from jobs.record import SCHEMA_VERSION
from jobs.status import status, status_of, text

RECORD: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "status": "running",
    "archive": {"name": "demo", "version": "1.0", "digest": "ab" * 32, "uri": "demo.mar"},
    "options": {
        "method": "odam",
        "target": "class",
        "layer": None,
        "fuse": False,
        "score_threshold": 0.6,
        "precision": "fp32",
        "shard_size": 256,
        "overlays": "none",
    },
    "counts": {"pictures": 2_500, "shards": 10},
    "times": {"started": "2026-01-02T03:04:05+00:00"},
}
STATS = {
    "pictures": 256,
    "pictures_with_detections": 200,
    "detections": 1_000,
    "failures": 1,
    "categories": {"mug": 700, "cup": 300},
    "seconds": 64.0,
}
DONE = {
    **RECORD,
    "status": "done",
    "counts": {
        "pictures": 2_500,
        "shards": 10,
        "detections": 9_000,
        "failures": 0,
        "pictures_with_detections": 2_000,
        "categories": {f"c{number}": 100 - number for number in range(12)},
    },
    "times": {
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T04:04:05+00:00",
        "seconds": 500.0,
        "pictures_per_second": 5.0,
    },
}


def written(place: str, record: dict[str, Any], shards: tuple[int, ...]) -> None:
    store = open_store(place)
    store.write("run.json", json.dumps(record).encode())
    for number in shards:
        stats = json.dumps({"shard": number, **STATS})
        store.write(f"shards/{number:05d}/stats.json", stats.encode())


def test_a_run_that_stopped(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    written(place, RECORD, (0, 1, 4, 8))
    assert status(StatusOptions(place)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{open_store(place).uri}: stopped",
        f"  archive    demo 1.0, sha256 {'ab' * 32}",
        "  explained  method odam, target class, score_threshold 0.6, precision fp32,"
        " shard_size 256, overlays none",
        "  shards     4 of 10 done; missing: 2-3, 5-7, 9",
        "  pictures   1,024 of 2,500 done, 4 failed",
        "  boxes      4,000: mug 2,800, cup 1,200",
        "  time       started 2026-01-02T03:04:05+00:00, 256.0 s of work (4.0 a second)",
        "  next       run the same command again: it does only the 6 missing shards",
    ]


def test_a_run_that_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(str(tmp_path), DONE, ())
    assert status(StatusOptions(str(tmp_path), json=True)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("options") == RECORD["options"]
    assert found == {
        "output": str(tmp_path),
        "state": "done",
        "archive": {"name": "demo", "version": "1.0", "digest": "ab" * 32},
        "shards": 10,
        "shards_done": 10,
        "shards_missing": [],
        "pictures": 2_500,
        "pictures_done": 2_500,
        "failures": 0,
        "detections": 9_000,
        "categories": {f"c{number}": 100 - number for number in range(10)},
        "seconds": 500.0,
        "pictures_per_second": 5.0,
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T04:04:05+00:00",
        "runners": [],
        "next": f"the tables: {tmp_path}/shards/*/detections.parquet",
    }


def test_a_run_at_work(tmp_path: Path) -> None:
    written(str(tmp_path), RECORD, ())
    store = open_store(str(tmp_path))
    mine = Holder.this_process("2-of-8")
    gone = Holder(**{**asdict(Holder.this_process("3-of-8")), "started": "long ago"})
    for each in (mine, gone):
        store.write(f"leases/{each.part}.json", each.to_json())
    current = status_of(store, RECORD)
    assert current.state == "running"
    assert current.runners == [{"who": mine.who, "part": "2-of-8", "since": mine.since}]
    assert f"  at work    {mine.who}, on 2-of-8, since {mine.since}" in text(current).splitlines()
    assert current.pictures_per_second is None


def test_parts_that_are_all_done_want_a_report(tmp_path: Path) -> None:
    written(str(tmp_path), RECORD, tuple(range(10)))
    current = status_of(open_store(str(tmp_path)), RECORD)
    assert (current.state, current.shards_missing) == ("stopped", [])
    assert current.next.startswith(f"python -m jobs report {tmp_path}, ")


def test_failures_are_pointed_to(tmp_path: Path) -> None:
    record = {**DONE, "counts": {**DONE["counts"], "failures": 3}}
    current = status_of(open_store(str(tmp_path)), record)
    assert current.next == f"why pictures failed: {tmp_path}/shards/*/failures.parquet"


def test_many_ranges_are_cut(tmp_path: Path) -> None:
    record = {**RECORD, "counts": {"pictures": 1_000, "shards": 40}}
    written(str(tmp_path), record, tuple(range(0, 40, 2)))
    current = status_of(open_store(str(tmp_path)), record)
    assert current.shards_missing == [str(number) for number in range(1, 40, 2)]
    assert "; missing: 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23 and 8 more\n" in text(current)


@pytest.mark.parametrize("json_too", [False, True])
def test_no_run(json_too: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=f"there is no run at {tmp_path}: it holds no run.json"):
        status(StatusOptions(str(tmp_path), json=json_too))
    out = capsys.readouterr().out
    assert (json.loads(out)["state"] if json_too else out) == ("nothing" if json_too else "")


def test_stats_that_are_none(tmp_path: Path) -> None:
    written(str(tmp_path), RECORD, ())
    store = open_store(str(tmp_path))
    store.write("shards/00002/stats.json", b"{")
    with pytest.raises(ConflictError, match=r"shards/00002/stats\.json is not JSON"):
        status_of(store, RECORD)

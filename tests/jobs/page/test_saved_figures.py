"""What a report keeps of its run's rows for the plots over time of later runs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from archives.stores.folder import FolderStore
from jobs.page.history import ENERGY, SCORE, earlier
from jobs.page.options import ReportPageOptions
from jobs.page.report import write_report
from jobs.saved_run import SavedRun
from tests.jobs.page.conftest import audit

KEPT = "report/figures.json"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all that is read."""
    found: list[str] = []
    read = FolderStore.read

    def noted(self: FolderStore, key: str) -> bytes:
        found.append(key)
        return read(self, key)

    monkeypatch.setattr(FolderStore, "read", noted)
    return found


def tables(reads: list[str]) -> list[str]:
    return [key for key in reads if "shards/" in key or key.endswith(".parquet")]


@pytest.fixture
def before(make_run: Callable[..., SavedRun]) -> SavedRun:
    run = make_run("a.png", "black.png", "cursed.png", "d.png", shard_size=1)
    audit(run, correlation=0.25)
    return run


def test_rows_of_a_run_with_a_report_are_not_read_again(before: SavedRun, reads: list[str]) -> None:
    from_rows = earlier([before.output.uri])
    assert len(tables(reads)) == 4 + 2  # each shard's stats, and the tables of two
    write_report(before, before.output, ReportPageOptions())
    reads.clear()
    assert earlier([before.output.uri]) == from_rows
    assert tables(reads) == []
    assert len(reads) == 3  # run.json, report/figures.json, audit/triage.json


@pytest.mark.parametrize(
    "kept",
    [
        {"run": "of another run"},
        {"schema_version": 2},
        {"score": "high"},
        {"score": float("nan")},
        {"more": 1},
    ],
)
def test_what_was_kept_in_vain_is_read_from_rows(
    kept: dict[str, object], before: SavedRun, reads: list[str]
) -> None:
    (from_rows,) = earlier([before.output.uri]).moments
    write_report(before, before.output, ReportPageOptions())
    found = json.loads(before.output.read(KEPT)) | {"energy": 7.0} | kept
    before.output.write(KEPT, json.dumps(found).encode())
    assert earlier([before.output.uri]).moments == (from_rows,)
    assert tables(reads)
    assert json.loads(before.output.read(KEPT))["energy"] == 7.0  # nothing is written there


def test_a_run_that_was_done_again_is_read_anew(before: SavedRun) -> None:
    write_report(before, before.output, ReportPageOptions())
    found = json.loads(before.output.read(KEPT)) | {"energy": 7.0}
    before.output.write(KEPT, json.dumps(found).encode())
    (moment,) = earlier([before.output.uri]).moments
    assert moment.values[ENERGY] == 7.0
    record = json.loads(before.output.read("run.json"))
    record["times"]["seconds"] += 1.0
    before.output.write("run.json", json.dumps(record).encode())
    (moment,) = earlier([before.output.uri]).moments
    assert moment.values[ENERGY] <= 1.0


def test_a_run_without_boxes_keeps_that_it_has_none(
    make_run: Callable[..., SavedRun], reads: list[str]
) -> None:
    run = make_run("black.png")
    write_report(run, run.output, ReportPageOptions())
    reads.clear()
    (found,) = earlier([run.output.uri]).moments
    assert not {SCORE, ENERGY} & found.values.keys()
    assert tables(reads) == []

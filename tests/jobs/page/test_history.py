"""Runs beside earlier ones."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from jobs.audit.findings import Part, write_part
from jobs.evaluation.measure import RANDOM
from jobs.page.history import BOXES, ENERGY, FAILURES, SCORE, Moment, earlier, series
from jobs.page.overview import plots_over_time
from jobs.saved_run import SavedRun
from tests.jobs.page.conftest import audit


def test_figures_of_an_earlier_run(make_run: Callable[..., SavedRun]) -> None:
    run = make_run("a.png", "black.png", "cursed.png", "d.png")
    audit(run, correlation=0.25)
    (found,) = earlier([run.output.uri]).moments
    assert found.archive == "demo 1.0"
    assert found.values[BOXES] == 1
    assert found.values[FAILURES] == 0.25
    assert found.values[SCORE] == pytest.approx(0.625)
    rows = [row["energy_in_box"] for each in run.pictures() for row in each.rows]
    assert found.values[ENERGY] == pytest.approx(sum(rows) / 4)
    assert found.values["The triage: correlation"] == 0.25


def test_figures_of_audits_are_named_and_controls_come_last(
    make_run: Callable[..., SavedRun],
) -> None:
    run = make_run("a.png")
    figures = {f"{RANDOM} energy": 0.5, f"odam energy less {RANDOM}": 0.25}
    write_part(run.output, Part("own", "Any good?", "", figures=figures))
    (found,) = earlier([run.output.uri]).moments
    assert list(found.values)[4:] == [
        f"Any good? odam energy less {RANDOM}",
        f"Any good? {RANDOM} energy",
    ]


def _delete(run: SavedRun) -> None:
    run.output.delete("run.json")


def _undo(run: SavedRun) -> None:
    run.output.write("run.json", json.dumps({**run.record, "status": "running"}).encode())


def _reform(run: SavedRun) -> None:
    run.output.write("run.json", json.dumps({**run.record, "schema_version": 1}).encode())


def _delete_half(run: SavedRun) -> None:
    run.output.delete("shards/00000/detections.parquet")


def _alter_table(run: SavedRun) -> None:
    run.output.write("shards/00000/detections.parquet", b"")


def _cut_record(run: SavedRun) -> None:
    found = {name: run.record[name] for name in ("schema_version", "status")}
    run.output.write("run.json", json.dumps(found).encode())


def _spoil_figures(run: SavedRun) -> None:
    part = {"name": "own", "title": "", "text": "", "tables": [], "figures": []}
    run.output.write("audit/own.json", json.dumps(part).encode())


def _alter_part(run: SavedRun) -> None:
    run.output.write("audit/own.json", b"{}")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_delete, "there is no run at"),
        (_undo, "is not done"),
        (_reform, "has schema_version 1, expected 3"),
        (_delete_half, "shards/00000/detections.parquet"),
        (_alter_table, "is not what its stats.json says was committed"),
        (_alter_part, "audit/own.json is no part of an audit"),
        (_spoil_figures, "audit/own.json is no part of an audit"),
        (_cut_record, "run.json"),
    ],
)
def test_a_run_that_cannot_be_read_is_left_out(
    spoil: Callable[[SavedRun], None], why: str, make_run: Callable[..., SavedRun]
) -> None:
    good, bad = make_run("a.png", output="good"), make_run("a.png", output="bad")
    spoil(bad)
    found = earlier([bad.output.uri, good.output.uri])
    assert found.moments == earlier([good.output.uri]).moments
    ((place, said),) = found.left_out
    assert place == bad.output.uri
    assert why in said


def test_lines_are_in_the_order_of_time_and_of_what_two_runs_have() -> None:
    moments = [
        Moment("2026-03-02", "today", "demo 2", {"a": 3.0, "b": 1.0}),
        Moment("2026-03-01", "before", "demo 1", {"a": 1.0, "c": 1.0}),
    ]
    assert series(moments) == {"a": [3.0, 1.0]}
    (plot,) = plots_over_time(moments)
    assert plot.rows == (("before, demo 1", "1.00"), ("today, demo 2", "3.00"))

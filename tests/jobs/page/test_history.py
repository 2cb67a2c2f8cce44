"""Runs beside earlier ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from archives.errors import UsageError
from jobs.page.history import BOXES, ENERGY, FAILURES, SCORE, Moment, earlier, series
from jobs.page.overview import plots_over_time
from jobs.saved_run import SavedRun
from tests.jobs.page.conftest import audit


def test_figures_of_an_earlier_run(make_run: Callable[..., SavedRun]) -> None:
    run = make_run("a.png", "black.png", "cursed.png", "d.png")
    audit(run, correlation=0.25)
    (found,) = earlier([run.output.uri])
    assert found.archive == "demo 1.0"
    assert found.values[BOXES] == 1
    assert found.values[FAILURES] == 0.25
    assert found.values[SCORE] == pytest.approx(0.625)
    rows = [row["energy_in_box"] for each in run.pictures() for row in each.rows]
    assert found.values[ENERGY] == pytest.approx(sum(rows) / 4)
    assert found.values["The triage: correlation"] == 0.25


def test_a_place_without_a_run_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UsageError, match="there is no run at"):
        earlier([str(tmp_path_factory.mktemp("empty"))])


def test_lines_are_in_the_order_of_time_and_of_what_two_runs_have() -> None:
    moments = [
        Moment("2026-03-02", "today", "demo 2", {"a": 3.0, "b": 1.0}),
        Moment("2026-03-01", "before", "demo 1", {"a": 1.0, "c": 1.0}),
    ]
    assert series(moments) == {"a": [3.0, 1.0]}
    (plot,) = plots_over_time(moments)
    assert plot.rows == (("before, demo 1", "1.00"), ("today, demo 2", "3.00"))

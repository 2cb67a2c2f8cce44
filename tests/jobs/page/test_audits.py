"""What audits left beside a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.audit.findings import Finding, Part
from jobs.page.audits import Flags, read_limits, read_parts
from jobs.page.text import shown
from jobs.saved_run import SavedRun
from tests.jobs.page.conftest import audit, write_thresholds

DIGEST = "ab" * 32


def test_parts_come_in_their_order_and_only_whole_ones(make_run: Callable[..., SavedRun]) -> None:
    run = make_run("a.png")
    assert read_parts(run.output) == ()
    assert read_limits(run.output, DIGEST) is None
    parts = [audit(run, name=name) for name in ("own", "triage", "changes")]
    run.output.write("audit/half.json", b"{}")
    run.output.write("audit/deeper/down.json", b"{}")
    assert read_parts(run.output) == (parts[2], parts[1], parts[0])


def test_the_worst_finding_counts() -> None:
    findings = [
        Finding("a", 1, "x", 0.2, "."),
        Finding("a", 1, "y", 0.7, "."),
        Finding("a", None, "z", 0.4, "."),
        Finding("b", None, "z", 0.0, "."),
    ]
    flags = Flags.of([Part("one", "", "", findings=tuple(findings))])
    assert flags.severities() == {"a": 0.7, "b": 0.0}
    assert [each.flag for _, each in flags.by_box["a", 1]] == ["y", "x"]


@pytest.mark.parametrize(
    ("energy", "told", "missed"),
    [(0.5, "0.500", ""), (4.0, "4", ""), (0.2, "0.200", "energy is 0.2, less than 0.3")],
)
def test_thresholds(
    energy: float, told: str, missed: str, make_run: Callable[..., SavedRun]
) -> None:
    run = make_run("a.png")
    write_thresholds(run, energy, 0.3)
    found = read_limits(run.output, DIGEST)
    assert found is not None
    (limit,) = found.limits
    assert (limit.figure, limit.value, limit.limit, limit.missed) == (
        *("energy", energy, "≥ 0.3"),
        missed,
    )
    assert shown(limit.value) == told  # what is a count looks like one
    assert (found.missed, found.problem) == ((limit,) if missed else (), "")


def test_reports_that_do_not_count(make_run: Callable[..., SavedRun]) -> None:
    run = make_run("a.png")
    write_thresholds(run, 0.5, 0.3, digest="cd" * 32)
    found = read_limits(run.output, DIGEST)
    assert found is not None
    assert "is of another archive, demo 1.0 with digest cdcdcdcdcdcd…" in found.problem
    run.output.write("audit.json", b"[]")
    found = read_limits(run.output, DIGEST)
    assert found is not None
    assert found.problem.startswith("audit.json is no audit's report: ")

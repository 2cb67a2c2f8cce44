"""The gallery's pictures: the worst first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from jobs.audit.findings import Finding, Part
from jobs.page import figures, selection
from jobs.page.audits import Flags
from jobs.page.selection import chosen
from jobs.saved_run import SavedRun

NAMES = ("a.png", "b.png", "black.png", "c.png", "cursed.png", "d.png")


def flags(*findings: Finding) -> Flags:
    return Flags.of([Part("triage", "", "", findings=findings)])


@pytest.fixture
def run(make_run: Callable[..., SavedRun]) -> SavedRun:
    return make_run(*NAMES, shard_size=2)


def order(run: SavedRun, found: Flags, most: int) -> list[str]:
    ranks = chosen(run, found, most).ranks
    assert sorted(ranks.values()) == list(range(len(ranks)))
    return [name for _, name in sorted(ranks, key=lambda each: ranks[each])]


def test_findings_go_first_by_severity_then_doubt_then_the_listing(run: SavedRun) -> None:
    found = flags(
        Finding("d.png", 0, "x", 0.2, "."),
        Finding("c.png", 2, "x", 0.9, "."),
        Finding("d.png", 2, "y", 0.5, "."),
        Finding("black.png", None, "missed", 0.0, "."),
    )
    assert order(run, found, 10) == ["c.png", "d.png", "black.png", "a.png", "b.png"]
    assert order(run, found, 2) == ["c.png", "d.png"]


def test_without_findings_doubt_decides(run: SavedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    energies = iter([0.9, 0.9, 0.9, 0.1, 0.5, 0.9, 0.9, 0.9])  # of a's boxes, b's, c's, d's

    def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
        if name != "energy_in_box":
            return figures.numbers(table, name)
        return np.array([next(energies) for _ in range(table.num_rows)])

    monkeypatch.setattr(selection, "numbers", numbers)
    # 0.75 * 0.1, then 0.5 * 0.9, 0.75 * 0.5, 0.75 * 0.1: a and d are equal.
    assert order(run, flags(), 10) == ["b.png", "c.png", "a.png", "d.png", "black.png"]


def test_counts(run: SavedRun) -> None:
    found = chosen(run, flags(), 3)
    assert (found.pictures, found.boxes, found.figures.score.number) == (5, 6, 8)
    assert {number for number, _ in found.ranks} <= {0, 1, 2}

"""A run's figures beside those of earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.audit.findings import Part
from jobs.page.audits import read_parts
from jobs.page.saved_figures import SavedFigures, saved_figures
from jobs.page.text import date, visible
from jobs.saved_run import SavedRun

BOXES = "Boxes a picture"
SCORE = "Mean score"
ENERGY = "Mean energy in the box"
FAILURES = "Share of pictures that failed"


@dataclass(frozen=True)
class Moment:
    """A run among others. started: ISO 8601. label: when, for people. archive: name and version.
    values: figures by their names; one that a run has not is not there."""

    started: str
    label: str
    archive: str
    values: Mapping[str, float]


def moment(record: Mapping[str, Any], figures: SavedFigures, parts: Sequence[Part]) -> Moment:
    """Of a run's record, its figures and the parts of its audit, whose findings do not matter."""
    counts, archive = record["counts"], record["archive"]
    pictures = counts["pictures"]
    found: dict[str, float | None] = {
        BOXES: counts["detections"] / pictures if pictures else None,
        SCORE: figures.score,
        ENERGY: figures.energy,
        FAILURES: counts["failures"] / pictures if pictures else None,
    }
    for part in parts:
        found |= {f"{part.title}: {name}": value for name, value in part.figures.items()}
    started = str(record["times"]["started"])
    return Moment(
        started,
        date(started),
        visible(f"{archive['name']} {archive['version']}"),
        {name: value for name, value in found.items() if value is not None},
    )


def earlier(places: Sequence[str]) -> list[Moment]:
    """Those of earlier runs. Raises UsageError where a place holds no finished run."""
    found = []
    for place in places:
        run = SavedRun.open(place)
        parts = read_parts(run.output, findings=False)
        found.append(moment(run.record, saved_figures(run), parts))
    return found


def series(moments: Sequence[Moment]) -> dict[str, list[float | None]]:
    """Each figure that two runs have, in the runs' order; None where a run has it not."""
    names = dict.fromkeys(name for each in moments for name in each.values)
    found = {name: [each.values.get(name) for each in moments] for name in names}
    return {
        name: values
        for name, values in found.items()
        if sum(each is not None for each in values) > 1
    }

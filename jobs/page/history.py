"""A run's figures beside those of earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archives.errors import CommandError, one_line
from jobs.audit.findings import Part
from jobs.evaluation.measure import CONTROLS
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
        title = part.title if part.title.endswith("?") else f"{part.title}:"
        names = sorted(part.figures, key=lambda name: name.startswith(CONTROLS))  # these last
        found |= {f"{title} {name}": part.figures[name] for name in names}
    started = str(record["times"]["started"])
    return Moment(
        started,
        date(started),
        visible(f"{archive['name']} {archive['version']}"),
        {name: value for name, value in found.items() if value is not None},
    )


@dataclass(frozen=True)
class Earlier:
    """Earlier runs. left_out: places that hold none which can be read, each with why, in a
    sentence's words."""

    moments: tuple[Moment, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def earlier(places: Sequence[str]) -> Earlier:
    """The runs at these places. One that was deleted, is not done, or has another form or a store
    that does not answer, must not cost the report of today's: it is left out."""
    moments, left_out = [], []
    for place in places:
        try:
            run = SavedRun.open(place)
            parts = read_parts(run.output, findings=False)
            moments.append(moment(run.record, saved_figures(run), parts))
        except CommandError as error:
            left_out.append((place, one_line(error)))
    return Earlier(tuple(moments), tuple(left_out))


def series(moments: Sequence[Moment]) -> dict[str, list[float | None]]:
    """Each figure that two runs have, in the runs' order; None where a run has it not."""
    names = dict.fromkeys(name for each in moments for name in each.values)
    found = {name: [each.values.get(name) for each in moments] for name in names}
    return {
        name: values
        for name, values in found.items()
        if sum(each is not None for each in values) > 1
    }

"""The figures of a run that plots over time need of its rows, kept in its report: a later run's
report looks at many earlier runs, and need not read all their rows each night."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from archives.errors import MissingObjectError
from jobs.names import REPORT
from jobs.page.figures import Figures, figures_of
from jobs.saved_run import SavedRun

NAME = "figures.json"  # below REPORT
# What run.json says of what its rows are: a run that is done again, even in part, has other times.
# Digests of all tables would be surer, but take a read for each shard.
ROWS = ("archive", "options", "input", "counts", "times")


class SavedFigures(BaseModel):
    """Of all boxes of a run: mean score, and mean energy in the box; None without boxes.

    run: the `fingerprint` of the run that they are of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    run: str
    score: FiniteFloat | None
    energy: FiniteFloat | None

    @classmethod
    def of(cls, record: Mapping[str, Any], figures: Figures) -> SavedFigures:
        """Of a run's record, and the figures of its rows."""
        score, energy = figures.score.value, figures.energy.value
        return cls(run=fingerprint(record), score=score, energy=energy)


def fingerprint(record: Mapping[str, Any]) -> str:
    """SHA-256, hexadecimal, of what a run.json says of the run's rows."""
    text = json.dumps([record.get(name) for name in ROWS], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def saved_figures(run: SavedRun) -> SavedFigures:
    """Those that the run's report kept; read from its rows where it kept none, or another run's."""
    try:
        found = SavedFigures.model_validate_json(run.output.read(REPORT + NAME))
    except (MissingObjectError, ValidationError):  # never written, or in another version's form
        found = None
    if found is not None and found.run == fingerprint(run.record):
        return found
    return SavedFigures.of(run.record, figures_of(run))

"""An evaluation as a part of an audit's report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.audit.findings import Cell, Part, Table
from jobs.evaluation.measure import CONTROLS, CURVES
from jobs.evaluation.thresholds import figures_of
from jobs.scoring.tables import better, located_figures, where_text

NAME = "evaluation"
TEXT = "How well the maps explain the boxes."
UNMATCHED = "No box is matched with a true object: no map was measured."
BESIDE = (
    "Beside them stand two maps that explain nothing: a Gaussian at the middle of the box, and a"
    " smooth random field. Where a map lies on its object says little"
    " by itself, for the Gaussian does that best: deletion (less is better) and insertion (more is"
    " better) say whether the pixels it names made the box. A difference of less than two standard"
    " errors is no difference."
)


def evaluation_part(
    summary: Mapping[str, Mapping[str, Any]], boxes: int, detector: Table | None, curves: str
) -> Part:
    """summary: as `jobs.scoring.summary.summarised` gives it, of so many boxes. detector: what it
    scores itself, where there is a truth. curves: how deletion and insertion were done, as
    `jobs.scoring.tables.curves_text` says it. Without one box, and so without a summary, the
    detector is all."""
    tables = [*_tables(summary, curves)] if summary else []
    texts = [TEXT, *([BESIDE] if CONTROLS[0] in summary else []), f"{boxes} boxes."]
    return Part(
        name=NAME,
        title="Are the maps any good?",
        text=" ".join(texts) if summary else UNMATCHED,
        tables=tuple(([detector] if detector else []) + tables),
        figures={"boxes measured": float(boxes), **figures_of(summary)},
    )


def _tables(summary: Mapping[str, Mapping[str, Any]], curves: str) -> Iterator[Table]:
    located = located_figures(summary)
    measured = [name for name in CURVES if name in next(iter(summary.values()))]
    yield _table("Where the maps lie", where_text(summary), summary, located)
    yield _table("Deletion and insertion", curves, summary, measured)
    for control in CONTROLS:
        less = {
            name: own[f"less {control}"]
            for name, own in summary.items()
            if f"less {control}" in own
        }
        if less:
            names = [name for name in (*located, *CURVES) if name in next(iter(less.values()))]
            title = f"Less {control.removeprefix('control: ')}"
            text = f"Box by box, of the same boxes: {better(names)}."
            yield _table(title, text, less, names)


def _table(
    title: str, text: str, summary: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, own in summary.items():
        cells: list[Cell] = [tuple(own[each]) if each in own else None for each in names]
        rows.append((name, *cells))
    return Table(title, text, ("map", *(each.replace("_", " ") for each in names)), tuple(rows))

"""An evaluation as a part of an audit's report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from handlers.metrics.localization import BY_BOX, BY_OBJECTS
from jobs.audit.findings import Cell, Part, Table
from jobs.evaluation.measure import CONTROLS, CURVES
from jobs.evaluation.thresholds import figures_of

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
    summary: Mapping[str, Mapping[str, Any]], boxes: int, detector: Table | None
) -> Part:
    """summary: as `jobs.scoring.summary.summarised` gives it, of so many boxes. detector: what it
    scores itself, where there is a truth. Without one box, and so without a summary, that is all.
    """
    tables = [*_tables(summary)] if summary else []
    texts = [TEXT, *([BESIDE] if CONTROLS[0] in summary else []), f"{boxes} boxes."]
    return Part(
        name=NAME,
        title="Are the maps any good?",
        text=" ".join(texts) if summary else UNMATCHED,
        tables=tuple(([detector] if detector else []) + tables),
        figures={"boxes measured": float(boxes), **figures_of(summary)},
    )


def _tables(summary: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    some = next(iter(summary.values()))
    located = [name for name in (*BY_BOX, *BY_OBJECTS) if name in some]
    yield _table("Where the maps lie", "", summary, located)
    yield _table("Deletion and insertion", "", summary, [n for n in CURVES if n in some])
    for control in CONTROLS:
        less = {
            name: own[f"less {control}"]
            for name, own in summary.items()
            if f"less {control}" in own
        }
        if less:
            names = [name for name in (*located, *CURVES) if name in next(iter(less.values()))]
            title = f"Less {control.removeprefix('control: ')}"
            yield _table(title, "Box by box, the same boxes.", less, names)


def _table(
    title: str, text: str, summary: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, own in summary.items():
        cells: list[Cell] = [tuple(own[each]) if each in own else None for each in names]
        rows.append((name, *cells))
    return Table(title, text, ("map", *(each.replace("_", " ") for each in names)), tuple(rows))

"""A part of an audit as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from jobs.audit.findings import Cell, Part


def as_markdown(part: Part) -> str:
    """Its heading, text and tables."""
    lines = [f"# {part.title}", "", part.text]
    for table in part.tables:
        lines += ["", f"## {table.title}", "", table.text, "", *_rows(table.columns, table.rows)]
    return "\n".join(lines) + "\n"


def shown(cell: Cell) -> str:
    """A cell's text: a mean with its standard error, where that is a number; "-" for nothing."""
    if isinstance(cell, tuple):
        mean, error = cell
        text = shown(float(mean))
        return text if math.isnan(error) or text == "-" else f"{text} ± {error:.3f}"
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell).replace("|", r"\|")


def _rows(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
    for cells in (columns, ["---"] * len(columns), *rows):
        yield f"| {' | '.join(map(shown, cells))} |"

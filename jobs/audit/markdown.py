"""A part of an audit as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator

from archives.errors import printable
from jobs.audit.findings import Cell, Part, Table


def as_markdown(part: Part) -> str:
    """Its heading, text and tables."""
    lines = [f"# {part.title}", "", part.text]
    for table in part.tables:
        lines += ["", f"## {table.title}", "", table.text, "", *table_rows(table)]
    return "\n".join(lines) + "\n"


def shown(cell: Cell) -> str:
    """A cell's text: a mean with its standard error, where that is a number; "-" for nothing."""
    if isinstance(cell, tuple):
        mean, error = cell
        text = shown(float(mean))
        return text if math.isnan(error) or text == "-" else f"{text} ± {error:.3f}"
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    if isinstance(cell, str):
        return printable(cell.replace("\n", " ")).replace("|", r"\|")
    return f"{cell:.3f}" if isinstance(cell, float) else f"{cell:,}"


def table_rows(table: Table) -> Iterator[str]:
    """A table's lines, its heading first."""
    for cells in (table.columns, ["---"] * len(table.columns), *table.rows):
        yield f"| {' | '.join(map(shown, cells))} |"

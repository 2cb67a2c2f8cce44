"""Parts as Markdown."""

from __future__ import annotations

import math

import pytest

from jobs.audit.findings import Cell, Part, Table
from jobs.audit.markdown import as_markdown, shown


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ((0.5, 0.01), "0.500 ± 0.010"),
        ((0.5, math.nan), "0.500"),
        ((math.nan, math.nan), "-"),
        (None, "-"),
        (math.nan, "-"),
        (0.25, "0.250"),
        (3, "3"),
        ("a|b", r"a\|b"),
    ],
)
def test_cells(cell: Cell, text: str) -> None:
    assert shown(cell) == text


def test_a_part() -> None:
    table = Table("Figures", "How to read.", ("map", "mean"), (("odam", 0.5), ("gradcam", None)))
    assert as_markdown(Part("p", "A part", "What.", (table,))) == (
        "# A part\n\nWhat.\n\n## Figures\n\nHow to read.\n\n"
        "| map | mean |\n| --- | --- |\n| odam | 0.500 |\n| gradcam | - |\n"
    )

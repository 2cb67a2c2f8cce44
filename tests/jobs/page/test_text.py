"""Numbers and names as the report shows them."""

from __future__ import annotations

import math

import pytest

from jobs.audit.findings import Cell
from jobs.page.text import counted, date, setting, shown, visible


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        ("a\u202eb\n", "a\\u202eb\\u000a"),
        (1234567, "1,234,567"),
        (-3, "−3"),
        (1234.5, "1,234"),
        (0.5, "0.500"),
        (12.0, "12.0"),
        (123.4, "123"),
        (-0.0123, "−0.0123"),
        (0.00012, "0.00012"),
        ((0.71, 0.013), "0.710 ± 0.013"),
        ((-12.345, 2.0), "−12.3 ± 2.0"),
        ((0.5, 0.0), "0.500"),
        ((0.5, None), "0.500"),
        ((None, None), "–"),
    ],
)
def test_cells(cell: Cell, text: str) -> None:
    assert shown(cell) == text


def test_names_keep_what_can_be_read() -> None:
    assert visible("Straße 日本 <b>&\"'") == "Straße 日本 <b>&\"'"
    assert visible("\u2066x\u200b\x07") == "\\u2066x\\u200b\\u0007"


def test_counts_dates_and_settings() -> None:
    assert [counted(number, "box", "boxes") for number in (1, 2000)] == ["1 box", "2,000 boxes"]
    assert date("2026-03-02T04:05:06+00:00") == "2026-03-02 04:05 UTC"
    assert setting({"method": "odam", "target": "class", "layer": "C4"}) == "odam · class · C4"

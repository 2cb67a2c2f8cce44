"""Means, errors and paired differences, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jobs.evaluation.measure import FIGURES, GAUSSIAN, RANDOM
from jobs.scoring.summary import FEWER, summarised


def row(name: str, picture: str, index: int, value: float) -> dict[str, Any]:
    figures = {**dict.fromkeys(FIGURES, value), "seconds": 1.0, "blurred": 0.0}
    return {"map": name, "picture": picture, "index": index, **figures}


def test_means_errors_and_paired_differences_by_hand() -> None:
    values = {("a", 0): (0.1, 0.5), ("b", 0): (0.2, 0.4), ("c", 0): (0.6, 0.6)}
    rows = [
        row(name, *place, value)
        for place, pair in values.items()
        for name, value in zip((GAUSSIAN, "odam"), pair, strict=True)
    ]
    found = summarised(rows)
    # 0.1, 0.2, 0.6: deviations -0.2, -0.1, 0.3; sqrt(0.14 / 2 / 3).
    assert found[GAUSSIAN]["deletion"] == pytest.approx((0.3, math.sqrt(0.14 / 6)))
    # 0.4, 0.2, 0.0: sqrt(0.08 / 2 / 3).
    less = found["odam"][f"less {GAUSSIAN}"]["insertion"]
    assert less == pytest.approx((0.2, math.sqrt(0.08 / 6)))
    assert f"less {RANDOM}" not in found["odam"]
    assert not any(each.startswith("less") for each in found[GAUSSIAN])


def test_boxes_of_a_picture_are_no_independent_evidence() -> None:
    rows = [row("odam", picture, index, value) for picture, index, value in TWICE]
    # Every box twice: as if there were one of each, 0.2 and 0.4: sqrt(0.02 / 1 / 2).
    assert summarised(rows)["odam"]["energy"] == pytest.approx((0.3, 0.1))
    assert math.isnan(summarised(rows[:2])["odam"]["energy"][1])


TWICE = [("a", 0, 0.2), ("a", 1, 0.2), ("b", 0, 0.4), ("b", 1, 0.4)]


def test_a_figure_is_of_the_boxes_that_have_it() -> None:
    rows = []
    for picture, index, value in (("a", 0, 0.2), ("a", 1, math.nan), ("b", 0, 0.4)):
        rows.append({**row("odam", picture, index, 0.5), "vea": value})
        rows.append({**row(GAUSSIAN, picture, index, 0.5), "vea": 0.1})
    found = summarised(rows)
    assert found["odam"]["vea"] == pytest.approx((0.3, 0.1))
    assert found["odam"][f"less {GAUSSIAN}"]["vea"] == pytest.approx((0.2, 0.1))
    assert found["odam"][FEWER] == {"vea": 2}
    assert found[GAUSSIAN][FEWER] == {}
    unknown = [{**each, "vea": math.nan} for each in rows]
    assert all(math.isnan(each) for each in summarised(unknown)["odam"]["vea"])
    # Of figures that not all rows have there is no summary.
    more = [row(name, "c", 0, 0.5) for name in ("odam", GAUSSIAN)]
    assert "vea" not in summarised([*rows, *more])["odam"]

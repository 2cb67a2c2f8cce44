"""The tables of an evaluation."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jobs.evaluation.measure import GAUSSIAN, figure_names
from jobs.scoring.summary import summarised
from jobs.scoring.tables import as_table, measured_boxes

SETTINGS = {
    "detector": "FasterRCNN",
    "score_threshold": 0.1,
    "faithfulness": {"steps": 11, "blur": 0.05, "growth": 2.0},
}


def table(truth: bool, **figures: float) -> str:
    rows: list[dict[str, Any]] = []
    for name, value in ((GAUSSIAN, 0.25), ("odam", 0.5)):
        own: dict[str, Any] = {
            **dict.fromkeys(figure_names(truth), value),
            "seconds": 2.0,
            "blurred": 0.02,
        }
        own |= {"map": name, "index": 3} | figures
        rows += [{**own, "picture": picture} for picture in ("a", "b")]
    assert measured_boxes(rows) == 2
    return as_table(summarised(rows), SETTINGS, rows)


def test_all_that_is_needed_to_read_the_figures_is_said() -> None:
    text = table(truth=True)
    lines = text.splitlines()
    assert lines[0] == (
        "FasterRCNN, 2 boxes scoring more than 0.1 on 2 pictures, each matched one to one with a"
        " true object of its category (IoU at least 0.5; 0.250 ± 0.000); mean and standard error."
    )
    for words in ("Fill: deletion goes to the mean colour", "Gaussian, 0.05 of the longer side"):
        assert words in text
    assert "11 points, from one to the next shares of the pixels growing with the power 2" in text
    where = "| map | pointing | energy | vea, box | compactness | pointing, mask | energy, mask |"
    assert [line for line in lines if line.startswith(where)] == [where + " vea | odi |"] * 2
    curves = [line for line in lines if line.startswith("| map | deletion | insertion |")]
    assert [line.count("raw") for line in curves] == [4, 4]
    # The differences are of the method alone.
    assert [line for line in lines if line.startswith("| odam |")][2] == (
        "| odam |" + " 0.250 ± 0.000 |" * 8
    )
    assert sum(line.startswith(f"| {GAUSSIAN} |") for line in lines) == 2


@pytest.mark.parametrize(
    ("truth", "figures", "words"),
    [
        (False, {}, "Where maps lie on the box"),
        (True, dict.fromkeys(("pointing_mask", "energy_mask", "vea"), math.nan), "has a mask."),
    ],
)
def test_figures_that_nothing_has_are_left_out(
    truth: bool, figures: dict[str, float], words: str
) -> None:
    text = table(truth, **figures)
    assert words in text
    assert "pointing, mask" not in text
    assert ("| odi |" in text) is truth

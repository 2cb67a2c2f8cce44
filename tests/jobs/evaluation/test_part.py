"""An evaluation as a part of an audit's report."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jobs.evaluation.measure import GAUSSIAN, figure_names
from jobs.evaluation.part import evaluation_part
from jobs.scoring.summary import summarised
from jobs.scoring.tables import curves_text


@pytest.mark.parametrize(("truth", "masks"), [(False, False), (True, False), (True, True)])
def test_tables_say_what_their_figures_are(truth: bool, masks: bool) -> None:
    own: dict[str, Any] = dict.fromkeys(figure_names(truth), 0.5)
    if truth and not masks:
        own |= dict.fromkeys(("pointing_mask", "energy_mask", "vea"), math.nan)
    own |= {"seconds": 2.0, "blurred": 0.02, "index": 3}
    rows = [
        {**own, "map": name, "picture": picture}
        for name in (GAUSSIAN, "odam")
        for picture in ("a", "b")
    ]
    curves = curves_text({"steps": 11, "blur": 0.05, "growth": 1}, rows)
    part = evaluation_part(summarised(rows), 2, None, curves)
    where, how, less = part.tables
    assert ("on the true object" if truth else "on the box") in where.text
    assert ("against the object's mask" in where.text) is masks
    assert ("vea" in where.columns) is masks
    for words in (
        "Fill: deletion goes to the mean colour.",
        "a blur (Gaussian, 0.05 of the longer side, where 0.02 of a detection is left)",
        "Step: 11 points, from one to the next equal numbers of pixels.",
        "raw ones, which follow the score",
    ):
        assert words in how.text
    assert {"deletion", "deletion raw", "insertion score raw"} <= set(how.columns)
    assert less.title == "Less Gaussian in the box"
    worse = "compactness, odi and deletion" if truth else "compactness and deletion"
    assert f"negative is better of {worse}; positive" in less.text

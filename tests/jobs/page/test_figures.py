"""A run's figures, added up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from jobs.page.figures import BINS, Figures, Mean, binned, figures_of
from jobs.saved_run import SavedRun


def test_means_and_errors_come_in_pieces() -> None:
    values = [0.1, 0.2, 0.6, 0.9]
    mean = Mean()
    for piece in (values[:1], values[1:3], [np.nan], values[3:]):
        mean.add(np.array(piece))
    assert mean.value == pytest.approx(np.mean(values))
    assert mean.error == pytest.approx(np.std(values, ddof=1) / 2)
    assert (Mean().value, Mean().error) == (None, None)


def test_bins_take_in_the_ends() -> None:
    found = binned(np.array([0.0, 0.049, 0.05, 0.999, 1.0, 1.2, np.nan]))
    assert found.sum() == 6
    assert (found[0], found[1], found[BINS - 1]) == (2, 1, 3)


def test_categories_and_their_flagged_boxes() -> None:
    columns = {
        "key": ["a", "a", "b"],
        "index": [0, 1, 0],
        "category": ["cat", "__proto__", "cat"],
        "score": [0.5, 0.75, 1.0],
        "energy_in_box": [0.25, 0.5, 0.75],
    }
    figures = Figures()
    figures.add(pa.table(columns), {("a", 1), ("b", 0), ("gone", 7)})
    cat = figures.categories["cat"]
    assert (cat.boxes, cat.flagged, cat.score.value, cat.energy.value) == (2, 1, 0.75, 0.5)
    assert figures.categories["__proto__"].flagged == 1
    assert figures.scores.sum() == 3


@pytest.mark.parametrize("layer", ["emitting", "emitting,C3"])
def test_each_box_counts_once_whatever_its_layers(
    layer: str, make_run: Callable[..., SavedRun]
) -> None:
    run = make_run("a.png", "b.png", "black.png", "cursed.png", request={"layer": layer})
    figures = figures_of(run)
    assert figures.score.number == run.record["counts"]["detections"] == 4
    assert figures.score.value == pytest.approx((0.75 + 0.5) / 2)
    assert {name: own.boxes for name, own in figures.categories.items()} == {"cat": 2, "dog": 2}

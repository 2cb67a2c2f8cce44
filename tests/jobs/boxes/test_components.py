"""The components of all thresholds at once, beside a labelling of each threshold alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from jobs.boxes import components as module
from jobs.boxes.components import Components, components

Row = tuple[int, list[float], int, float]


def labelled(heat: NDArray[Any], thresholds: NDArray[Any], connectivity: int) -> list[Row]:
    """The slow twin: scipy's labelling, threshold by threshold."""
    rows: list[Row] = []
    structure = np.ones((3, 3)) if connectivity == 8 else None
    for place, threshold in enumerate(thresholds):
        labels, number = ndimage.label(heat >= threshold, structure)
        for label in range(1, number + 1):
            down, across = np.nonzero(labels == label)
            box = [across.min(), down.min(), across.max() + 1, down.max() + 1]
            peak = float(heat[labels == label].max())
            rows.append((place, [float(edge) for edge in box], len(down), peak))
    return rows


def as_rows(found: Components) -> list[Row]:
    columns = (found.threshold, found.boxes, found.area, found.peak)
    return list(zip(*(each.tolist() for each in columns), strict=True))


def test_by_hand() -> None:
    heat = np.array([[5.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0]])
    assert as_rows(components(heat, [1.0, 2.0, 6.0], 4)) == [
        (0, [0, 0, 1, 1], 1, 5),
        (0, [1, 0, 3, 2], 3, 2),
        (1, [0, 0, 1, 1], 1, 5),
        (1, [1, 1, 2, 2], 1, 2),
    ]
    assert as_rows(components(heat, [1.0, 2.0], 8)) == [
        (0, [0, 0, 3, 2], 4, 5),
        (1, [0, 0, 2, 2], 2, 5),
    ]


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("shape", [(9, 7), (1, 1), (1, 12), (12, 1), (20, 31)])
def test_as_labelled_one_by_one(
    shape: tuple[int, int], connectivity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(3)
    for most in (1, 20, module.MOST_RUNS):  # thresholds by themselves, by halves, all at once
        monkeypatch.setattr(module, "MOST_RUNS", most)
        for _ in range(8):
            heat = random.integers(0, 6, shape).astype(np.float32)
            thresholds = np.unique(random.integers(1, 7, 4) - 0.25 * random.integers(0, 2, 4))
            found = components(heat, list(thresholds), connectivity)
            assert as_rows(found) == labelled(heat, thresholds, connectivity)


def test_a_smooth_map_at_many_thresholds() -> None:
    random = np.random.default_rng(5)
    heat = ndimage.zoom(random.random((5, 6)), 9, order=1)
    thresholds = np.linspace(0.02, 1.0, 50) * heat.max()
    assert as_rows(components(heat, list(thresholds))) == labelled(heat, thresholds, 8)


@pytest.mark.parametrize(
    ("thresholds", "connectivity"), [([1.0, 1.0], 8), ([2.0, 1.0], 8), ([1.0], 6), ([], 8)]
)
def test_what_is_refused(thresholds: list[float], connectivity: int) -> None:
    with pytest.raises(ValueError, match="expected 4 or 8, and thresholds that ascend"):
        components(np.ones((2, 2)), thresholds, connectivity)

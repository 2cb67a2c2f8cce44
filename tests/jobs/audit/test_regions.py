"""Regions by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.audit.regions import CELLS, SIDES, beside, cell, inside, outside_all

BOX = (20.0, 30.0, 40.0, 75.0)  # 20 x 45 px, in a frame of 100 x 90


def edges(mask: np.ndarray) -> tuple[int, ...]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        # 0.8 of the root of 20 x 45: 24 px; the box's margin of 1 px is not taken, which strips
        # above and below go around.
        ("right", (41, 30, 64, 75)),
        ("left", (0, 30, 19, 75)),
        ("below", (0, 75, 64, 90)),
        ("above", (0, 6, 64, 30)),
    ],
)
def test_strips(side: str, expected: tuple[int, ...]) -> None:
    mask = beside(BOX, side, 90, 100)
    assert edges(mask) == expected
    x1, y1, x2, y2 = expected
    assert mask.sum() == (x2 - x1) * (y2 - y1) - (22 if side in ("below", "above") else 0)


def test_strips_end_at_the_frame() -> None:
    assert not beside((0.0, 0.0, 20.0, 20.0), "left", 90, 100).any()
    assert set(SIDES) == {"right", "left", "below", "above"}


def test_cells_are_the_frame() -> None:
    assert (CELLS[0], CELLS[4], CELLS[5]) == ("upper left", "middle", "middle right")
    masks = [cell(name, 91, 100) for name in CELLS]
    assert np.array_equal(sum(mask.astype(int) for mask in masks), np.ones((91, 100)))
    assert edges(cell("upper right", 91, 100)) == (66, 0, 100, 30)
    assert edges(cell("lower middle", 91, 100)) == (33, 60, 66, 91)


def test_inside_and_outside() -> None:
    assert edges(inside((1.2, 2.0, 5.5, 7.0), 90, 100)) == (1, 2, 6, 7)
    assert edges(inside((1.0, 2.0, 5.0, 7.0), 90, 100, 3)) == (0, 0, 8, 10)
    outside = outside_all([BOX, (0.0, 0.0, 5.0, 5.0)], 90, 100)
    # With a margin of 1 px: 22 x 47, and 6 x 6 at the corner.
    assert (~outside).sum() == 22 * 47 + 36

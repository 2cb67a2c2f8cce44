from __future__ import annotations

import pytest
import torch

from handlers.images import Geometry
from handlers.metrics.pointing import energy_in_box, peak
from handlers.schema import Explanation

# A 40 x 20 picture at double size in a frame of 96 x 48: 16 x 16 frame pixels a cell (6 x 3 cells),
# so a cell is 8 x 8 picture pixels and the last column and half of the last row are padding.
GEOMETRY = Geometry(40, 20, 96.0, 48.0, 2.0, 2.0)


def explanation(cells: dict[tuple[int, int], float], box: tuple[float, ...]) -> Explanation:
    heatmap = torch.zeros(3, 6)
    for place, value in cells.items():
        heatmap[place] = value
    x1, y1, x2, y2 = box
    return Explanation(
        0, (x1, y1, x2, y2), 1, "cat", 0.9, "odam", "class", "emitting", "0", heatmap, GEOMETRY
    )


@pytest.mark.parametrize(
    ("cells", "box", "expected"),
    [
        ({(0, 0): 2.0}, (0, 0, 8, 8), 1.0),
        ({(0, 0): 2.0}, (0, 0, 4, 8), 0.5),  # the box cuts the cell
        ({(0, 0): 1.0, (0, 4): 3.0}, (0, 0, 8, 20), 0.25),
        ({(2, 0): 1.0, (0, 0): 1.0}, (0, 16, 8, 20), 1 / 3),  # half of row 2 lies off the picture
        ({(0, 5): 9.0, (1, 1): 1.0}, (8, 8, 16, 16), 1.0),  # column 5 is padding
        ({}, (0, 0, 8, 8), 0.0),
    ],
)
def test_energy_by_hand(
    cells: dict[tuple[int, int], float], box: tuple[float, ...], expected: float
) -> None:
    assert energy_in_box(explanation(cells, box)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({(1, 2): 1.0}, (20.0, 12.0)),
        ({(2, 0): 1.0}, (4.0, 18.0)),  # cut at the lower border: from 16 to 20
        ({(0, 5): 1.0}, (40.0, 4.0)),  # padding: moved to the border
    ],
)
def test_peak_by_hand(cells: dict[tuple[int, int], float], expected: tuple[float, float]) -> None:
    assert peak(explanation(cells, (0, 0, 1, 1))) == expected

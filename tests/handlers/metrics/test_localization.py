"""Figures of maps on their objects: by hand, and beside plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from handlers.images import Geometry
from handlers.metrics.localization import (
    BY_BOX,
    BY_OBJECTS,
    Regions,
    box_cover,
    box_masks,
    compactness,
    energy,
    entropy,
    localization,
    odi,
    points_in_box,
    points_in_mask,
    vea,
)
from handlers.metrics.pointing import energy_in_box
from handlers.schema import Explanation

# A picture of 3 x 4 pixels.
HEAT = torch.tensor([[[0.0, 4, 0, 2], [1, 10, 0, 0], [0, 0, 3, 0]]])
LEFT = torch.tensor([[[True, True, False, False]] * 3])


def box(*edges: float) -> Tensor:
    return torch.tensor([edges], dtype=torch.float32)


@pytest.mark.parametrize(
    ("edges", "points", "share"),
    [
        ((0, 0, 2, 3), 1, 15 / 20),
        ((0, 0, 1.5, 3), 1, 8 / 20),  # the edge goes through the peak's middle: half of 4 and 10
        ((0, 0, 1.4, 3), 0, 6.6 / 20),
        ((2, 0, 9, 9), 0, 5 / 20),  # beyond the picture
        ((1, 1, 1, 1), 0, 0),
    ],
)
def test_pointing_and_energy_in_a_box_by_hand(
    edges: tuple[float, ...], points: float, share: float
) -> None:
    assert points_in_box(HEAT, box(*edges)).item() == points
    for floor in (0, 7):  # the least value is subtracted first
        own = energy(HEAT + floor, box_cover(box(*edges), 3, 4))
        assert own.item() == pytest.approx(share)


def test_masks_by_hand() -> None:
    assert points_in_mask(HEAT, LEFT).item() == 1
    assert points_in_mask(HEAT, ~LEFT).item() == 0
    assert energy(HEAT, ~LEFT).item() == 5 / 20
    # Over .1: 4 2 10 3, of which 4 and 10 are among the mask's 6; over .2: 4 10 3; over .3: 4 10,
    # since 3 / 10 is not more; from .4 on: 10.
    by_hand = (2 / 8 + 2 / 7 + 2 / 6 + 6 * (1 / 6)) / 9
    assert vea(HEAT, LEFT).item() == pytest.approx(by_hand)
    assert odi(HEAT, LEFT, ~LEFT).item() == 5 / 20
    # What both have is its own: the others' 4 and 10 do not count against it.
    assert odi(HEAT, LEFT, torch.ones_like(LEFT)).item() == 5 / 20
    only = torch.zeros_like(LEFT)
    only[0, 2, 2] = True
    assert odi(HEAT, LEFT, only).item() == 3 / 18


def test_compactness_by_hand() -> None:
    # From the 10: 4 and 1 are one pixel away, 2 and 3 the root of 5 and of 2.
    squares = 4 * 1 + 1 * 1 + 2 * 5 + 3 * 2
    found = compactness(HEAT, box(0, 0, 2, 4)).item()
    assert found == pytest.approx(math.sqrt(squares / ((4 + 16) / 4 * 20)))
    one = torch.zeros(1, 3, 4)
    one[0, 2, 3] = 5
    assert compactness(one, box(0, 0, 1, 1)).item() == 0


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([[1.0, 0], [0, 0]], 0.0),
        ([[3.0, 3], [3, 3]], 1.0),
        ([[0.0, 5], [5, 0]], 0.5),  # one bit of two
        ([[0.0, 0], [0, 0]], 0.0),
        ([[7.0]], 0.0),
    ],
)
def test_entropy_by_hand(shares: list[list[float]], expected: float) -> None:
    several = torch.tensor([shares, shares])
    assert entropy(several).tolist() == pytest.approx([expected] * 2)


def test_maps_with_nothing_in_them() -> None:
    masks, boxes = torch.ones(2, 3, 4, dtype=torch.bool), box(0, 0, 4, 3).expand(2, 4)
    flat = torch.stack([torch.zeros(3, 4), torch.full((3, 4), 2.0)])
    assert points_in_box(flat, boxes).tolist() == [0, 0]
    assert points_in_mask(flat, masks).tolist() == [0, 0]
    assert energy(flat, masks).tolist() == [0, 0]
    assert vea(flat, masks).tolist() == [0, 1]
    assert compactness(flat, boxes).isnan().tolist() == [True, False]
    assert compactness(HEAT, box(1, 1, 1, 1)).isnan().all()
    assert odi(flat, LEFT, ~LEFT).isnan().tolist() == [True, False]
    assert odi(HEAT, LEFT, LEFT).isnan().all()  # nothing that is not its own


def test_what_an_object_has_no_mask_for_is_no_number() -> None:
    heat, boxes = HEAT.expand(2, 3, 4), box(0, 0, 2, 3).expand(2, 4)
    masks = torch.cat([LEFT, torch.zeros_like(LEFT)])
    everything = torch.ones(3, 4, dtype=torch.bool)
    found = localization(heat, Regions(boxes, masks, everything))
    assert tuple(found) == (*BY_BOX, *BY_OBJECTS)
    for name in ("pointing_mask", "energy_mask", "vea"):
        assert found[name].isnan().tolist() == [False, True]
    # The box stands in for the mask, and is the same here.
    assert found["odi"].tolist() == [5 / 20] * 2
    assert found["vea_box"][0] == found["vea"][0]
    assert tuple(localization(heat, Regions(boxes))) == BY_BOX


def test_energy_is_that_of_cells_where_the_cells_are_the_pixels() -> None:
    geometry = Geometry(4, 3, 4.0, 3.0, 1.0, 1.0)
    edges = (0.3, 0.6, 2.2, 2.9)
    one = Explanation(0, edges, 1, "cat", 0.9, "", "", "", "", HEAT[0], geometry)
    assert energy(HEAT, box_cover(box(*edges), 3, 4)).item() == pytest.approx(energy_in_box(one))


# The slow twins: plain loops over pixels of one map.
def slow_pointing(heat: NDArray[np.float64], inside: Callable[[int, int], bool]) -> float:
    return float(inside(*divmod(int(heat.argmax()), heat.shape[1])))


def slow_energy(heat: NDArray[np.float64], inside: Callable[[int, int], float]) -> float:
    places, least = list(np.ndindex(heat.shape)), heat.min()
    total = sum(heat[place] - least for place in places)
    return float(sum((heat[place] - least) * inside(*place) for place in places) / total)


def slow_vea(heat: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    overlaps = []
    for tenths in range(1, 10):
        over = {place for place in np.ndindex(heat.shape) if heat[place] / heat.max() > tenths / 10}
        own = {place for place in np.ndindex(heat.shape) if mask[place]}
        overlaps.append(len(over & own) / len(over | own))
    return sum(overlaps) / 9


def slow_odi(heat: NDArray[np.float64], own: NDArray[np.bool_], every: NDArray[np.bool_]) -> float:
    places = list(np.ndindex(heat.shape))
    beside = sum(heat[place] for place in places if every[place] and not own[place])
    return float(beside / sum(heat[place] for place in places if every[place] or own[place]))


def slow_compactness(heat: NDArray[np.float64], edges: NDArray[np.float64]) -> float:
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    squares = sum(
        heat[y, x] * ((y - row) ** 2 + (x - column) ** 2) for y, x in np.ndindex(heat.shape)
    )
    x1, y1, x2, y2 = edges
    return math.sqrt(squares / (((x2 - x1) ** 2 + (y2 - y1) ** 2) / 4 * heat.sum()))


def slow_entropy(heat: NDArray[np.float64]) -> float:
    shares = [value / heat.sum() for value in heat.flatten() if value > 0]
    return float(-sum(share * math.log(share) for share in shares) / math.log(heat.size))


@pytest.mark.parametrize("seed", range(3))
def test_all_boxes_at_once_are_as_one_by_one_in_loops(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    heat = torch.rand(5, 7, 9, generator=generator).square()
    corners = torch.rand(5, 2, generator=generator) * torch.tensor([6, 4])
    boxes = torch.cat([corners, corners + 1 + 3 * torch.rand(5, 2, generator=generator)], 1)
    masks = box_masks(boxes, 7, 9) & (torch.rand(5, 7, 9, generator=generator) > 0.3)
    masks[:, 3, 4] = True
    everything = torch.rand(7, 9, generator=generator) > 0.4
    found = localization(heat, Regions(boxes, masks, everything))
    assert entropy(heat).tolist() == pytest.approx([slow_entropy(each.numpy()) for each in heat])
    for place, one in enumerate(heat.double().numpy()):
        edges = boxes[place].double().numpy()
        mask = masks[place].numpy()

        def middle_in(row: int, column: int, edges: NDArray[np.float64] = edges) -> bool:
            x1, y1, x2, y2 = edges
            return bool(x1 <= column + 0.5 <= x2 and y1 <= row + 0.5 <= y2)

        def cover(row: int, column: int, edges: NDArray[np.float64] = edges) -> float:
            x1, y1, x2, y2 = edges
            wide = max(0.0, min(column + 1, x2) - max(column, x1))
            return float(wide * max(0.0, min(row + 1, y2) - max(row, y1)))

        filled = np.array([middle_in(*at) for at in product(range(7), range(9))]).reshape(7, 9)
        expected = {
            "pointing": slow_pointing(one, middle_in),
            "energy": slow_energy(one, cover),
            "vea_box": slow_vea(one, filled),
            "compactness": slow_compactness(one, edges),
            "pointing_mask": slow_pointing(one, lambda *at, mask=mask: bool(mask[at])),
            "energy_mask": slow_energy(one, lambda *at, mask=mask: float(mask[at])),
            "vea": slow_vea(one, mask),
            "odi": slow_odi(one, mask, everything.numpy()),
        }
        assert {name: float(each[place]) for name, each in found.items()} == pytest.approx(
            expected, rel=1e-5
        )

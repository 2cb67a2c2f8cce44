"""What stands in the place of what is taken away."""

from __future__ import annotations

import pytest
import torch

from jobs.audit.fills import exchanged, filled, resized


def test_a_hole_is_filled_from_around_it() -> None:
    picture = torch.full((3, 40, 60), 90, dtype=torch.uint8)
    picture[:, 10:20, 20:35] = 250
    hidden = torch.zeros(40, 60, dtype=torch.bool)
    hidden[10:20, 20:35] = True
    assert filled(picture, hidden).unique().tolist() == [90]
    # What is not hidden stays.
    random = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    assert torch.equal(filled(random, hidden)[:, ~hidden], random[:, ~hidden])
    assert torch.equal(filled(random, torch.zeros_like(hidden)), random)
    assert filled(random, torch.ones_like(hidden)).unique().tolist() == [128]


def test_a_hole_between_two_colours_goes_from_one_to_the_other() -> None:
    picture = torch.full((3, 32, 32), 40, dtype=torch.uint8)
    picture[:, :, 16:] = 200
    hidden = torch.zeros(32, 32, dtype=torch.bool)
    hidden[8:24, 8:24] = True
    row = filled(picture, hidden)[0, 16].tolist()
    assert row[8] < 80
    assert row[23] > 160
    assert row[8:24] == sorted(row[8:24])


def test_another_object_covers_a_box_but_for_its_corners() -> None:
    picture = torch.zeros(3, 60, 80, dtype=torch.uint8)
    other = torch.full((3, 7, 9), 200, dtype=torch.uint8)
    found = exchanged(picture, (20, 10, 60, 50), other)
    outside = torch.ones(60, 80, dtype=torch.bool)
    outside[10:50, 20:60] = False
    assert int(found[:, outside].max()) == 0
    assert found[0, 30, 40] == 200
    assert (found[0, 10:50, 20:60] == 200).float().mean() > 0.8
    assert found[0, 10, 20] == 0
    # Half way at the middle of an edge.
    assert 60 <= int(found[0, 30, 20]) <= 150
    beyond = exchanged(picture, (-20, -20, 40, 40), other)
    assert beyond[0, 20, 20] == 200
    assert torch.equal(exchanged(picture, (90, 10, 99, 20), other), picture)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (16, 24)])
def test_another_size(height: int, width: int) -> None:
    picture = torch.zeros(3, 8, 12, dtype=torch.uint8)
    picture[:, :, 6:] = 100
    found = resized(picture, height, width)
    assert found.shape == (3, height, width)
    assert (int(found[0, 0, 0]), int(found[0, 0, -1])) == (0, 100)

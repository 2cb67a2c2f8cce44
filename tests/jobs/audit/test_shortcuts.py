"""Which categories are flagged, from made-up evidence."""

from __future__ import annotations

import math

import pytest

from jobs.audit.places import BESIDE, NEIGHBOUR, REGIONS, SPOT, SURROUNDINGS, Evidence, Place
from jobs.audit.shortcuts import ascribed, clusters, pairs

RIGHT, CORNER, MIDDLE = Place(BESIDE, "right"), Place(SPOT, "upper left"), Place(SPOT, "middle")
RED, BLUE = (1.0, 0.0), (0.0, 1.0)


def one(
    number: int, *lost: Place, category: str = "cat", look: tuple[float, ...] = RED, index: int = 0
) -> Evidence:
    """A detection that falls without each of these places; without any, an honest one."""
    kept = {place: 0.0 if place in lost else 1.0 for place in REGIONS}
    return Evidence(
        f"{number:03}",
        index,
        (0.0, 0.0, 9.0, 9.0),
        category,
        0.9,
        90,
        120,
        0.0 if lost else 1.0,
        0.0,
        kept if lost else {},
        looks=dict.fromkeys(lost, look),
    )


def whole(number: int) -> Evidence:
    """One that falls by its surroundings as a whole."""
    kept = dict.fromkeys(REGIONS, 1.0)
    return Evidence(f"{number:03}", 0, (0, 0, 9, 9), "cat", 0.9, 90, 120, 0.1, math.nan, kept)


def test_a_category_is_flagged_where_its_detections_depend_on_one_place() -> None:
    evidence = [one(number, RIGHT) for number in range(8)]
    evidence += [one(number) for number in range(8, 20)]
    evidence += [one(number, category="dog", index=1) for number in range(20)]
    (found,) = pairs(evidence, level=0.02)
    assert (found.category, found.place, found.flagged) == ("cat", RIGHT, True)
    assert (found.dependent, found.detections) == (8, 20)
    assert (found.dependent_pictures, found.pictures) == (8, 20)
    assert found.share == 0.4
    assert found.interval == pytest.approx((0.2188, 0.6134), abs=1e-4)  # of 8 of 20
    plain = sum(math.comb(20, n) * 0.02**n * 0.98 ** (20 - n) for n in range(8, 21))
    assert found.p == pytest.approx(plain * 2 * 15)  # two categories, 15 places


def test_chance_and_honest_detections_are_not_flagged() -> None:
    assert pairs([one(number) for number in range(50)]) == []
    several = [one(0, RIGHT), one(1, CORNER), *(one(number) for number in range(2, 60))]
    assert [(each.place, each.flagged) for each in pairs(several)] == [
        (RIGHT, False),
        (CORNER, False),
    ]


def test_many_boxes_of_one_picture_are_no_evidence() -> None:
    evidence = [one(0, RIGHT, index=index) for index in range(30)]
    (found,) = pairs([*evidence, one(1), one(2)])
    assert found.share == 30 / 32
    assert not found.flagged


def test_a_mark_that_lies_in_several_regions_is_ascribed_to_the_commonest() -> None:
    cells = [Place(SPOT, name) for name in ("upper left", "middle", "lower right")]
    evidence = [one(number, RIGHT, cells[number % 3]) for number in range(9)]
    evidence += [one(9, MIDDLE)]
    places = ascribed(evidence)
    assert [places[each.key, 0] for each in evidence] == [RIGHT] * 9 + [MIDDLE]
    assert [(each.place, each.flagged) for each in pairs(evidence)] == [
        (RIGHT, True),
        (MIDDLE, False),
    ]
    # The other way round: at one spot of the frame, wherever the box is.
    sides = [Place(BESIDE, name) for name in ("left", "above", "below")]
    evidence = [one(number, CORNER, sides[number % 3]) for number in range(9)]
    assert set(ascribed(evidence).values()) == {CORNER}


def test_neighbours_and_surroundings() -> None:
    evidence = [one(number, Place(NEIGHBOUR)) for number in range(6)]
    evidence += [whole(number) for number in range(6, 16)]
    found = pairs(evidence)
    assert [(each.place.kind, each.dependent, each.flagged) for each in found] == [
        (SURROUNDINGS, 10, True),
        (NEIGHBOUR, 6, True),
    ]


def test_clusters_are_of_one_place_and_one_look() -> None:
    evidence = [one(0, RIGHT), one(1, RIGHT, look=BLUE), one(2, RIGHT, look=(0.6, 0.4))]
    evidence += [one(3, CORNER, category="dog"), one(4)]
    groups = clusters(evidence, ascribed(evidence))
    assert groups == {
        ("000", 0): "cat: beside the box: right, look 1",
        ("001", 0): "cat: beside the box: right, look 2",
        ("002", 0): "cat: beside the box: right, look 1",
        ("003", 0): "dog: spot of the frame: upper left",
    }

"""COCO's figures: by hand, and by plain loops of its rules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from jobs.scoring.coco_average_precision import FIGURES, coco_average_precision
from jobs.scoring.matching import overlaps
from jobs.scoring.pictures import DetectedPicture
from jobs.truth.objects import Objects

IOUS = np.linspace(0.5, 0.95, 10)


def picture(
    found: list[tuple[str, float, list[float]]],
    true: list[tuple[str, list[float]]],
    crowd: tuple[int, ...] = (),
    difficult: tuple[int, ...] = (),
    areas: list[float] | None = None,
) -> DetectedPicture:
    number = len(true)
    return DetectedPicture(
        "x.jpg",
        np.array([box for *_, box in found], dtype=float).reshape(-1, 4),
        tuple(name for name, *_ in found),
        np.array([score for _, score, _ in found]),
        Objects(
            np.array([box for _, box in true], dtype=float).reshape(-1, 4),
            tuple(name for name, _ in true),
            np.isin(np.arange(number), difficult),
            np.isin(np.arange(number), crowd),
            (None,) * number,
            None if areas is None else np.array(areas),
        ),
    )


SQUARE, LARGE = [10.0, 10, 30, 30], [0.0, 0, 100, 100]


def test_figures_by_hand() -> None:
    # IoU 0.78 of a small cat: right at .50, .55, ... .75; a large dog that is not found.
    one = picture([("cat", 0.9, [10, 10, 30, 25.6])], [("cat", SQUARE), ("dog", LARGE)])
    found = coco_average_precision([one])
    assert list(found.figures) == list(FIGURES)
    assert found.by_category == {"cat": pytest.approx(0.6), "dog": 0}
    expected = {"AP": 0.3, "AP50": 0.5, "AP75": 0.5, "AP small": 0.6, "AP large": 0, "AR 1": 0.3}
    assert {name: found.figures[name] for name in expected} == pytest.approx(expected)
    assert math.isnan(found.figures["AP medium"])


def test_the_annotations_areas_tell_the_size() -> None:
    one = picture([("cat", 0.9, SQUARE)], [("cat", SQUARE)], areas=[33.0**2])
    figures = coco_average_precision([one]).figures
    assert figures["AP medium"] == pytest.approx(1)
    assert math.isnan(figures["AP small"])
    other = picture([("cat", 0.9, SQUARE)], [("cat", SQUARE)], areas=[math.nan])
    assert coco_average_precision([other]).figures["AP small"] == pytest.approx(1)


@pytest.mark.parametrize("kind", ["crowd", "difficult"])
def test_what_counts_neither_way(kind: str) -> None:
    boxes = [("cat", 0.9, [50.0, 50, 60, 60]), ("cat", 0.8, SQUARE), ("cat", 0.95, LARGE)]
    true = [("cat", SQUARE), ("cat", LARGE)]
    ignored: dict[str, Any] = {kind: (1,)}
    found = coco_average_precision([picture(boxes, true, **ignored)])
    assert found.figures["AP"] == pytest.approx(1)


def test_nothing_to_find_and_nothing_found() -> None:
    assert all(map(math.isnan, coco_average_precision([]).figures.values()))
    crowd = picture([("cat", 0.9, SQUARE)], [("cat", SQUARE)], crowd=(0,))
    assert all(map(math.isnan, coco_average_precision([crowd]).figures.values()))
    missed = coco_average_precision([picture([], [("cat", SQUARE)])])
    assert (missed.figures["AP"], missed.by_category) == (0, {"cat": 0})
    strange = coco_average_precision([picture([("cow", 0.9, SQUARE)], [("cat", SQUARE)])])
    assert strange.by_category["cat"] == 0
    assert math.isnan(strange.by_category["cow"])


def random_pictures(seed: int) -> Iterator[DetectedPicture]:
    random = np.random.default_rng(seed)
    for _ in range(4):
        corners = random.integers(0, 60, (5, 2))
        true = np.hstack([corners, corners + random.integers(8, 40, (5, 2))]).astype(float)
        boxes = np.repeat(true, 2, axis=0) + random.normal(0, 2, (10, 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        names = [str(each) for each in random.choice(["cat", "dog"], 5)]
        found = [
            (names[place // 2], float(random.random()), box.tolist())
            for place, box in enumerate(boxes)
        ]
        yield picture(found, list(zip(names, true.tolist(), strict=True)))


def slow(pictures: list[DetectedPicture], category: str, least: float) -> float:
    """AP of one category and IoU: each box, the surest first over all pictures, takes the object
    left that it overlaps most; then the mean of the best precision beyond 101 recalls."""
    boxes = sorted(
        (-score, number, place)
        for number, each in enumerate(pictures)
        for place, score in enumerate(each.scores)
        if each.categories[place] == category
    )
    total = sum(each.objects.categories.count(category) for each in pictures)
    taken: set[tuple[int, int]] = set()
    points = []
    for rank, (_, number, place) in enumerate(boxes, 1):
        each = pictures[number]
        shares = overlaps(each.boxes[place : place + 1], each.objects.boxes)[0]
        free = [
            (share, other)
            for other, share in enumerate(shares)
            if each.objects.categories[other] == category and (number, other) not in taken
        ]
        if free and max(free)[0] >= least:
            taken.add((number, max(free)[1]))
        points.append((len(taken) / total, len(taken) / rank))
    return float(
        np.mean(
            [
                max((p for r, p in points if r >= step), default=0.0)
                for step in np.linspace(0, 1, 101)
            ]
        )
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_second_implementation(seed: int) -> None:
    pictures = list(random_pictures(seed))
    found = coco_average_precision(pictures)
    expected = {name: [slow(pictures, name, each) for each in IOUS] for name in ("cat", "dog")}
    for name, values in expected.items():
        assert found.by_category[name] == pytest.approx(np.mean(values))
    assert found.figures["AP"] == pytest.approx(np.mean([*expected.values()]))
    assert found.figures["AP75"] == pytest.approx(np.mean([own[5] for own in expected.values()]))

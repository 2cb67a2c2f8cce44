"""Average precision: by hand, by a second implementation, and of a sample with known values."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.scoring.average_precision import (
    Curve,
    Curves,
    mean_over_categories,
    voc_11_point,
    voc_every_point,
)
from jobs.scoring.text_boxes import read_text_boxes
from jobs.truth.objects import Objects

SAMPLE = Path(os.environ.get("WHYBOX_DATA", "/nonexistent")) / "object-detection-metrics"


def curve(right: list[bool], objects: int) -> Curve:
    scores = np.linspace(0.9, 0.1, len(right))
    return Curve.of(scores, np.array(right, dtype=bool), objects)


@pytest.mark.parametrize(
    ("right", "objects", "every", "eleven"),
    [
        ([True, True], 2, 1.0, 1.0),
        ([True, False], 2, 0.5, 6 / 11),  # recall 0, 0.1, ... 0.5
        ([False, True], 1, 0.5, 0.5),
        # Precision at the hits: 1, 2/3, 3/5; each a quarter of the recall; one is missed. Recall to
        # 0.2, to 0.5 and to 0.7 are three steps, three and two.
        (
            [True, False, True, False, True],
            4,
            (1 + 2 / 3 + 3 / 5) / 4,
            (3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11,
        ),
        # A later, better precision counts for the earlier recall: 2/3 twice, not 1/2 and 2/3.
        ([False, True, True], 2, 2 / 3, 2 / 3),
        # 3 of 10 do not reach 3 * 0.1 in floating point: steps 0, 0.1 and 0.2.
        ([True, True, True], 10, 0.3, 3 / 11),
        ([], 3, 0.0, 0.0),
    ],
)
def test_areas_by_hand(right: list[bool], objects: int, every: float, eleven: float) -> None:
    found = curve(right, objects)
    assert voc_every_point(found) == pytest.approx(every)
    assert voc_11_point(found) == pytest.approx(eleven)


def test_without_objects_there_is_no_precision_to_average() -> None:
    found = curve([False], 0)
    assert math.isnan(voc_every_point(found))
    assert math.isnan(voc_11_point(found))
    assert math.isnan(found.recall[0])
    assert mean_over_categories([0.25, math.nan, 0.75]) == 0.5
    assert math.isnan(mean_over_categories([math.nan]))


def test_a_curve_is_in_order_and_is_cut_at_a_score() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.7])
    found = Curve.of(scores, np.array([True, True, False, False]), 4)
    assert found.scores.tolist() == [0.9, 0.7, 0.5, 0.5]
    assert found.correct.tolist() == [True, False, True, False]
    assert found.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert found.recall.tolist() == [0.25, 0.25, 0.5, 0.5]
    cuts = [found.positives(each) for each in (0.95, 0.9, 0.6, 0.5)]
    assert cuts == [(0, 0), (1, 0), (1, 1), (2, 2)]
    assert found.positives() == (2, 2)


def objects(boxes: NDArray[np.float64], names: list[str], difficult: list[bool]) -> Objects:
    number = len(names)
    no = np.zeros(number, dtype=bool)
    return Objects(boxes, tuple(names), np.array(difficult, dtype=bool), no, (None,) * number)


def test_difficult_objects_count_neither_way() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    curves = Curves()
    curves.add(
        boxes, ["cat", "cat"], np.array([0.5, 0.9]), objects(boxes, ["cat"] * 2, [False, True])
    )
    curves.add(boxes[:1], ["dog"], np.array([0.8]), objects(boxes, ["cow"] * 2, [True, True]))
    found = curves.by_category()
    assert list(found) == ["cat", "cow", "dog"]
    assert [each.objects for each in found.values()] == [1, 0, 0]
    assert [each.positives() for each in found.values()] == [(1, 0), (0, 0), (0, 1)]


def slow(pictures: list[tuple[list[list[float]], list[float], list[list[float]]]]) -> list[float]:
    """VOC's two figures in plain loops over all detections, of one category at IoU 0.5: for each
    number of detections precision and recall are counted anew."""
    all_found = [
        (s, n, b) for n, (bs, ss, _) in enumerate(pictures) for b, s in zip(bs, ss, strict=True)
    ]
    all_found.sort(key=lambda each: -each[0])
    total = sum(len(true) for _, _, true in pictures)
    taken: set[tuple[int, int]] = set()
    points = []
    hits = 0
    for number, (_, place, box) in enumerate(all_found, 1):
        ratios = [iou(box, each) for each in pictures[place][2]]
        best = max(range(len(ratios)), key=ratios.__getitem__, default=-1)
        if best >= 0 and ratios[best] >= 0.5 and (place, best) not in taken:
            taken.add((place, best))
            hits += 1
        points.append((hits / total, hits / number))
    steps = [max([p for r, p in points if r >= k * 0.1], default=0.0) for k in range(11)]
    recalls = sorted({r for r, _ in points if r})
    area = sum(
        (r - before) * max(p for other, p in points if other >= r)
        for before, r in zip([0.0, *recalls], recalls, strict=False)
    )
    return [area, sum(steps) / 11]


def iou(one: list[float], other: list[float]) -> float:
    w = min(one[2], other[2]) - max(one[0], other[0])
    h = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(w, 0) * max(h, 0)
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (one, other)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize("seed", range(20))
def test_a_second_implementation(seed: int) -> None:
    random = np.random.default_rng(seed)
    curves, pictures = Curves(), []
    for _ in range(5):
        corners = random.integers(0, 40, (random.integers(1, 6), 2))
        true = np.hstack([corners, corners + random.integers(5, 30, corners.shape)]).astype(float)
        boxes = np.repeat(true, 2, axis=0) + random.integers(-3, 4, (2 * len(true), 4)).astype(
            float
        )
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = random.random(len(boxes))
        no = [False] * len(true)
        curves.add(boxes, ["cat"] * len(boxes), scores, objects(true, ["cat"] * len(true), no))
        pictures.append((boxes.tolist(), scores.tolist(), true.tolist()))
    found = curves.by_category()["cat"]
    assert [voc_every_point(found), voc_11_point(found)] == pytest.approx(slow(pictures))


@pytest.mark.skipif(
    not SAMPLE.is_dir(), reason="WHYBOX_DATA names no folder with object-detection-metrics/ in it"
)
@pytest.mark.parametrize(
    ("least", "every", "eleven"),
    [
        (0.1, 0.3371980676, 0.3333333333),
        (0.3, 0.24568668, 0.26839827),
        (0.5, 0.0222222222, 0.0303030303),
        (0.75, 0, 0),
    ],
)
def test_the_known_sample(least: float, every: float, eleven: float) -> None:
    # Its program counts a box's edges as its first and last pixel.
    curves = Curves(least, pixel=1)
    for each in read_text_boxes(str(SAMPLE)).pictures():
        curves.add(each.boxes, each.categories, each.scores, each.objects)
    found = curves.by_category()["object"]
    assert voc_every_point(found) == pytest.approx(every, abs=5e-9)
    assert voc_11_point(found) == pytest.approx(eleven, abs=5e-9)
    if least == 0.3:
        assert found.positives() == (7, 17)

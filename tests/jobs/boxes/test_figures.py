"""AP, recall, chosen thresholds and box accuracies of maps whose boxes are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from handlers.images import Geometry
from handlers.schema import Explanation
from jobs.boxes.explaining import NamedMap
from jobs.boxes.figures import (
    ALL,
    SCORE,
    TUNE,
    accuracies,
    chosen_thresholds,
    figures,
    means,
)
from jobs.boxes.options import BoxStep
from jobs.boxes.saved_maps import MappedPicture
from jobs.boxes.scored import IN_BOX, MAP, MIDDLE, OWN, Held, held_against_truth
from jobs.scoring.matching import FALSE, IGNORED
from jobs.truth.objects import Objects

WHOLE = Geometry(8, 8, 8.0, 8.0, 1.0, 1.0)
STEP = BoxStep(thresholds=(0.2, 0.6), iou=(0.5,), controls=True)


def objects(*boxes: tuple[str, int, int, int, int], difficult: int = -1) -> Objects:
    hard = np.arange(len(boxes)) == difficult
    edges = np.array([each[1:] for each in boxes], dtype=np.float64).reshape(-1, 4)
    names = tuple(each[0] for each in boxes)
    return Objects(edges, names, hard, np.zeros_like(hard), (None,) * len(boxes))


def hot(category: str, score: float, *cells: tuple[int, int, int, int, float]) -> NamedMap:
    """A map that is so hot at x1, y1, x2, y2."""
    heat = torch.zeros(8, 8)
    for x1, y1, x2, y2, value in cells:
        heat[y1:y2, x1:x2] = value
    own = Explanation(
        index=0,
        box=(0.0, 0.0, 2.0, 2.0),
        label=1,
        category="class",
        score=score,
        method="odam",
        target="class",
        layer="emitting",
        level="0",
        heatmap=heat,
        geometry=WHOLE,
    )
    return NamedMap(category, own)


PICTURES = [
    # At 0.2 the box is 4 x 4, four times too large; at 0.6 it is right.
    MappedPicture(
        "a.jpg",
        TUNE,
        objects(
            ("cat", 0, 0, 2, 2),
            (
                "dog",
                4,
                4,
                8,
                8,
            ),
        ),
        (hot("cat", 0.9, (0, 0, 4, 4, 0.3), (0, 0, 2, 2, 1.0)),),
    ),
    # Right at 0.2, and at 0.6 too small; the difficult one counts neither way.
    MappedPicture(
        "b.jpg",
        SCORE,
        objects(("cat", 0, 0, 4, 4), ("cat", 6, 6, 8, 8), difficult=1),
        (
            hot("cat", 0.8, (0, 0, 4, 4, 0.3), (0, 0, 1, 2, 1.0)),
            hot("cat", 0.7, (6, 6, 8, 8, 1.0)),
        ),
    ),
    MappedPicture("c.jpg", SCORE, objects(), (hot("cat", 0.95, (0, 0, 1, 1, 1.0)),)),
]


@pytest.fixture
def held() -> Held:
    return held_against_truth(PICTURES, ["cat", "dog"], STEP, has_boxes=True)


def sets(held: Held) -> dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    named = np.array(held.splits, dtype=object)
    return {ALL: named != "", TUNE: named == TUNE, SCORE: named == SCORE}


def test_what_is_held_against_the_truth(held: Held) -> None:
    assert held.positives.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert list(held.kinds) == [MAP, MIDDLE, IN_BOX, OWN]
    found = held.kinds[MAP]
    by_threshold = {place: found.hit[found.threshold == place, 0].tolist() for place in range(2)}
    assert by_threshold == {0: [FALSE, 0, IGNORED, FALSE], 1: [0, FALSE, IGNORED, FALSE]}
    # Pictures and categories: a cat, a dog nobody looked for, b cat.
    assert found.item_picture.tolist() == [0, 0, 1]
    assert found.largest.tolist() == [[0.25, 1], [0, 0], [1, 2 / 16]]
    own = held.kinds[OWN]
    assert own.thresholds == (None,)
    assert own.boxes.tolist() == [[0, 0, 2, 2]] * 4


def test_average_precision_and_recall_by_hand(held: Held) -> None:
    found = figures(held, sets(held), STEP.iou)
    rows = {(each.set, each.threshold, each.category): each for each in found if each.map == MAP}
    # The score split, cats at 0.2: c's false one at 0.95, then b's at 0.8: precision 1/2.
    cat = rows[SCORE, 0.2, "cat"]
    assert (cat.objects, cat.detections) == (1, 2)
    assert (cat.ap_11, cat.ap, cat.recall) == pytest.approx((0.5, 0.5, 1.0))
    assert rows[SCORE, 0.6, "cat"].ap == 0
    # Dogs are in `a` alone, and the mean is over what is there.
    assert math.isnan(rows[SCORE, 0.2, "dog"].ap)
    assert rows[SCORE, 0.2, None].ap == pytest.approx(0.5)
    assert rows[TUNE, 0.6, None].ap == pytest.approx((1 + 0) / 2)
    # All: false, the tuned one at 0.9 right, b wrong: 1/2 at recall 1/2.
    assert rows[ALL, 0.6, "cat"].ap == pytest.approx(0.25)
    assert rows[ALL, 0.6, "cat"].ap_11 == pytest.approx(0.5 * 6 / 11)
    assert len(means(found, MAP, ALL, 0.5)) == 2


def test_thresholds_are_chosen_on_one_split_and_scored_on_the_other(held: Held) -> None:
    found = figures(held, sets(held), STEP.iou)
    mine, *_ = chosen_thresholds(found, held.kinds, STEP.iou)
    assert (mine.map, mine.threshold, mine.tune_ap_11) == (MAP, 0.6, 0.5)
    assert (mine.ap_11, mine.recall) == (0, 0)
    assert (mine.best_threshold, mine.best_ap_11) == (0.2, 0.5)
    without = {name: own for name, own in sets(held).items() if name != TUNE}
    assert chosen_thresholds(figures(held, without, STEP.iou), held.kinds, STEP.iou) == []


def test_box_accuracies_by_set(held: Held) -> None:
    rows = {(each.map, each.set): each for each in accuracies(held, sets(held))}
    all_of_it = rows[MAP, ALL]
    assert (all_of_it.items, all_of_it.threshold) == (3, 0.2)
    assert (all_of_it.max_box_acc, all_of_it.max_box_acc_v2) == pytest.approx((1 / 3, 1 / 3))
    # On the tuning split 0.6 is best, which finds nothing on the other.
    assert (rows[MAP, SCORE].max_box_acc, rows[MAP, SCORE].box_acc) == (1.0, 0.0)
    assert rows[OWN, TUNE].threshold is None


def test_controls_know_the_box_or_nothing(held: Held) -> None:
    # A quarter of the side, so at 0.2 of the maximum 1.8 deviations: 0.9 of the half side.
    for name, middle, half in ((MIDDLE, 4, 4), (IN_BOX, 1, 1)):
        own = held.kinds[name]
        boxes = own.boxes[own.threshold == 0]
        expected = [math.floor(middle - 0.9 * half + 0.5), math.ceil(middle + 0.9 * half - 0.5)]
        assert boxes[0].tolist() == [expected[0]] * 2 + [expected[1]] * 2
    few = held_against_truth(PICTURES, ["cat"], replace(STEP, controls=False), has_boxes=True)
    assert list(few.kinds) == [MAP]
    of_classes = held_against_truth(PICTURES, ["cat"], STEP, has_boxes=False)
    assert list(of_classes.kinds) == [MAP, MIDDLE]


def test_all_components_go_the_highest_peak_first() -> None:
    one = hot("cat", 0.9, (0, 0, 4, 4, 0.5), (6, 6, 8, 8, 1.0))
    pictures = [MappedPicture("a.jpg", None, objects(("cat", 0, 0, 4, 4)), (one,))]
    for kind, expected in (("all", [FALSE, 0]), ("largest", [0])):
        step = BoxStep(thresholds=(0.2,), iou=(0.5,), components=kind)
        found = held_against_truth(pictures, ["cat"], step, has_boxes=False).kinds[MAP]
        assert found.hit[:, 0].tolist() == expected


def test_nothing_detected_is_no_figure_of_nothing() -> None:
    pictures = [MappedPicture("a.jpg", None, objects(("cat", 0, 0, 4, 4)), ())]
    held = held_against_truth(pictures, ["cat"], STEP, has_boxes=True)
    own = {ALL: np.ones(1, dtype=np.bool_)}
    assert {each.ap for each in figures(held, own, (0.5,))} == {0.0}
    assert {each.max_box_acc for each in accuracies(held, own)} == {0.0}

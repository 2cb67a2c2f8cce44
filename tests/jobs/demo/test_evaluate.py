"""Evaluation: average precision by hand, matching, and the weights that ship."""

import math

import numpy as np
import pytest

from jobs.demo import evaluate as module
from jobs.demo.data import held_out
from jobs.demo.evaluate import (
    BELOW_LEAST_MEAN,
    WEIGHTS,
    Found,
    average_precision,
    category_precisions,
    evaluate,
    judge,
    main,
    overlaps,
)
from jobs.demo.scenes import CATEGORIES

GREATEST_BYTES = 8_000_000


def found(boxes: list[list[float]], scores: list[float], label: int = 1) -> Found:
    return Found(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.full(len(boxes), label, dtype=np.int64),
        np.array(scores, dtype=np.float32),
    )


@pytest.mark.parametrize(
    ("scores", "right", "total", "expected"),
    [
        ([0.9, 0.8], [True, True], 2, 1.0),
        ([0.9, 0.8], [True, False], 2, 0.5),
        ([0.9, 0.8], [False, True], 1, 0.5),
        # Precision at the hits: 1, 2/3, 3/5; each a quarter of the recall; one is missed.
        ([0.9, 0.8, 0.7, 0.6, 0.5], [True, False, True, False, True], 4, (1 + 2 / 3 + 3 / 5) / 4),
        # A later, better precision counts for the earlier recall: 2/3 twice, not 1/2 and 2/3.
        ([0.9, 0.8, 0.7], [False, True, True], 2, 2 / 3),
        # The order given does not matter.
        ([0.7, 0.9, 0.8], [True, False, True], 2, 2 / 3),
        ([], [], 3, 0.0),
    ],
)
def test_average_precision(
    scores: list[float], right: list[bool], total: int, expected: float
) -> None:
    got = average_precision(np.array(scores, np.float32), np.array(right, bool), total)
    assert got == pytest.approx(expected)


def test_average_precision_without_objects_is_no_number() -> None:
    assert math.isnan(average_precision(np.ones(1, np.float32), np.zeros(1, bool), 0))


def test_overlaps() -> None:
    box = np.array([0, 0, 10, 10], dtype=np.float32)
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10]], dtype=np.float32)
    assert overlaps(box, others) == pytest.approx([1, 1 / 3, 0])


def test_an_object_is_found_once_and_by_its_own_category() -> None:
    true = found([[0, 0, 10, 10], [50, 50, 60, 60]], [1, 1])
    boxes = [[0.0, 0, 10, 9], [0.0, 0, 10, 10], [50.0, 50, 60, 54]]
    scores, right = judge(found(boxes, [0.5, 0.9, 0.8]), true, 1)
    assert scores == pytest.approx([0.9, 0.8, 0.5])
    # The middle one overlaps by 0.4 alone, the last comes second to the same object.
    assert right.tolist() == [True, False, False]
    assert judge(found(boxes, [0.5, 0.9, 0.8], label=2), true, 2)[1].tolist() == [False] * 3
    precisions = category_precisions([(found(boxes, [0.5, 0.9, 0.8]), true)], 2)
    assert precisions[0] == pytest.approx(0.5)
    assert math.isnan(precisions[1])


@pytest.mark.parametrize(("precision", "status"), [(0.95, 0), (0.85, BELOW_LEAST_MEAN)])
def test_the_status_tells_a_weak_detector(
    precision: float,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: dict.fromkeys(CATEGORIES, precision))
    assert main(["--scenes", "3", "--device", "cpu"]) == status
    printed = capsys.readouterr().out
    assert all(category in printed for category in CATEGORIES)
    assert f"mean AP50  {precision:.3f}" in printed


def test_the_shipped_weights_are_small_and_good() -> None:
    assert WEIGHTS.stat().st_size <= GREATEST_BYTES
    precisions = evaluate(WEIGHTS, held_out("scenes", 25))
    assert tuple(precisions) == CATEGORIES
    assert np.mean(list(precisions.values())) >= 0.85

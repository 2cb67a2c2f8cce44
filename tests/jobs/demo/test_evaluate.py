"""Evaluation: AP50 by hand, and the weights that ship."""

import math

import numpy as np
import pytest

from jobs.demo import evaluate as module
from jobs.demo.data import held_out
from jobs.demo.evaluate import (
    BELOW_LEAST_MEAN,
    WEIGHTS,
    Found,
    category_precisions,
    evaluate,
    main,
)
from jobs.demo.scenes import CATEGORIES

GREATEST_BYTES = 8_000_000


def found(boxes: list[list[float]], scores: list[float], label: int = 1) -> Found:
    return Found(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.full(len(boxes), label, dtype=np.int64),
        np.array(scores, dtype=np.float32),
    )


def test_an_object_is_found_once_and_by_its_own_category() -> None:
    true = found([[0, 0, 10, 10], [50, 50, 60, 60]], [1, 1])
    boxes = [[0.0, 0, 10, 9], [0.0, 0, 10, 10], [50.0, 50, 60, 54]]
    # The surest is right; the next overlaps by 0.4 alone, the last comes second to one object.
    precisions = category_precisions([(found(boxes, [0.5, 0.9, 0.8]), true)], ("cat", "dog", "cow"))
    assert precisions[0] == pytest.approx(0.5)
    assert all(math.isnan(each) for each in precisions[1:])
    other = category_precisions([(found(boxes, [0.5, 0.9, 0.8], label=2), true)], ("cat", "dog"))
    assert other[0] == 0
    assert math.isnan(other[1])


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

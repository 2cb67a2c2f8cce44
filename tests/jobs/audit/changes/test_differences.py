"""What became of the detections of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from handlers.schema import Explanation
from jobs.audit.changes.differences import Reach, changes
from jobs.saved_run import Row, SavedPicture
from jobs.worker.outcome import outcome
from jobs.worker.pictures import Picture, unwatched
from tests.jobs.audit.scripted import SIDE, found

A, B = (0.0, 0.0, 20.0, 10.0), (20.0, 20.0, 40.0, 40.0)
ALL = Reach(0.0, None, 100)


def saved(explanations: Sequence[Explanation]) -> SavedPicture:
    """As a run leaves it; each layer of a detection follows the other."""
    layers = list(dict.fromkeys(each.layer for each in explanations))
    numbered = [
        replace(each, index=place // len(layers)) for place, each in enumerate(explanations)
    ]
    done, _ = outcome(
        Picture("a", torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)), numbered, "none", unwatched
    )
    rows: tuple[Row, ...] = tuple(done.rows)  # type: ignore[union-attr]
    of = {(row["index"], row["layer"]): each for row, each in zip(rows, numbered, strict=True)}
    return SavedPicture("a", "a", rows, lambda row: of[row["index"], row["layer"]])


def changed(
    before: Sequence[Explanation], after: Sequence[Explanation], *reaches: Reach
) -> list[dict[str, Any]]:
    one, other = reaches or (ALL, ALL)
    return [
        {
            name: getattr(each, name)
            for name in ("kind", "iou", "score", "growth", "correlation", "energy", "size")
        }
        for each in changes(saved(before), saved(after), (one, other), 0.5)
    ]


def test_equal_detections_did_not_change() -> None:
    both = [found("cat", 0.9, A), found("dog", 0.8, B, [[0, 0], [0, 0]])]
    same = {"kind": "matched", "iou": 1, "score": 0, "growth": 0, "correlation": 1, "energy": 0}
    assert changed(both, both) == [same | {"size": 0}] * 2


def test_rounding_is_no_change() -> None:
    one = found("cat", 0.9, A, [[0, 1], [0.5, 0.25]])
    other = found("cat", 0.9001, (0.05, 0, 20, 10.05), [[0.001, 0.999], [0.499, 0.251]])
    ((found_one),) = changed([one], [other])
    assert found_one["size"] == 0
    assert (found_one["growth"], found_one["energy"]) == (0, 0)


def test_a_matched_detection_by_hand() -> None:
    one = found("cat", 0.9, A, [[1, 0], [0, 0]])
    other = found("cat", 0.8, (0, 0, 20, 20), [[1, 0], [1, 0]])
    ((found_one),) = changed([one], [other])
    assert found_one["iou"] == 0.5
    assert found_one["score"] == pytest.approx(-0.1)
    assert found_one["growth"] == pytest.approx(0.6931, abs=1e-4)
    # Half of the one map's only cell, and one whole of two.
    assert found_one["energy"] == pytest.approx(0.5 - 0.5)
    correlation = 0.5 / (0.75 * 1) ** 0.5
    assert found_one["correlation"] == pytest.approx(correlation)
    assert found_one["size"] == pytest.approx(min(0.9, 0.1 + 0.9 * (0.5 + 1 - correlation)))


def test_what_is_in_one_run_alone() -> None:
    cat, dog = found("cat", 0.9, A), found("dog", 0.7, B)
    assert [(each["kind"], each["size"]) for each in changed([cat, dog], [cat])] == [
        ("matched", 0),
        ("disappeared", 0.7),
    ]
    assert [(each["kind"], each["size"]) for each in changed([], [dog])] == [("appeared", 0.7)]
    turned = changed([cat], [found("dog", 0.7, A)])
    assert [(each["kind"], each["size"]) for each in turned] == [("category changed", 0.9)]


@pytest.mark.parametrize(
    ("options", "score", "listed", "held"),
    [
        ({"score_threshold": 0.5, "max_detections": 100}, 0.6, [], True),
        ({"score_threshold": 0.5, "max_detections": 100}, 0.4, [0.9], False),
        ({"score_threshold": 0.5, "max_detections": 100}, 0.5001, [], False),  # rounding
        ({"score_threshold": 0.5, "max_detections": 2}, 0.6, [0.9, 0.7], False),
        ({"score_threshold": 0.5, "max_detections": 2}, 0.8, [0.9, 0.7], True),
        ({"score_threshold": 0.5, "category": "dog"}, 0.9, [], False),
        ({"score_threshold": 0.5, "candidates": 3, "max_detections": 1}, 0.1, [0.9, 0.8], True),
        ({"score_threshold": 0.5, "candidates": 2}, 0.1, [0.9, 0.8], False),
    ],
)
def test_what_a_run_would_have_listed(
    options: dict[str, Any], score: float, listed: list[float], held: bool
) -> None:
    rows = [{"category": "cat", "score": each} for each in (score, *listed)]
    assert Reach.of(options).holds(rows[0], rows[1:]) is held


def test_what_the_other_run_could_not_list_counts_neither_way() -> None:
    one, other = [found("cat", 0.6, A)], [found("dog", 0.65, B)]
    (lost, new) = changed(one, other, Reach(0.5, None, 100), Reach(0.62, None, 100))
    assert (lost["kind"], lost["size"]) == ("out of reach", 0)
    assert new["kind"] == "appeared"


def test_layers_are_compared_with_their_own() -> None:
    emitting = found("cat", 0.9, A, [[1, 0], [0, 0]])
    other = replace(emitting, layer="C3", heatmap=emitting.heatmap.flip(1))
    assert changed([emitting, other], [emitting, other])[0]["correlation"] == 1
    ((alone),) = changed([emitting, other], [other])
    assert alone["correlation"] == 1
    # Of two runs with one layer each these, whatever their names; of several none in common none.
    assert changed([emitting], [other])[0]["correlation"] == pytest.approx(-1 / 3)
    several = [replace(each, layer=each.layer + "'") for each in (emitting, other)]
    assert changed([emitting, other], several)[0]["correlation"] is None

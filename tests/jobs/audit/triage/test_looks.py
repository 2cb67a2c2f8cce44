"""What a run alone says of its detections."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from handlers.images import Geometry
from jobs.audit.triage.looks import Look, Looks, entropy
from jobs.audit.triage.noticed import LOW_ENERGY, OUTSIDE, SCATTERED, Findings
from tests.jobs.audit.scripted import SIDE, found


@pytest.mark.parametrize(
    ("heat", "expected"),
    [
        ([[0, 1], [0, 0]], 0),
        ([[3, 3], [3, 3]], 1),
        ([[1, 0], [0, 1]], 0.5),  # log 2 / log 4
        ([[2, 1], [1, 0]], 0.75),  # (1/2 log 2 + 2/4 log 4) / log 4
        ([[0, 0], [0, 0]], 0),
        ([[5]], 0),
    ],
)
def test_entropy_by_hand(heat: list[list[float]], expected: float) -> None:
    assert entropy(found("cat", 0.9, (0, 0, 9, 9), heat)) == pytest.approx(expected)


def test_cells_of_padding_do_not_count() -> None:
    padded = Geometry(SIDE, SIDE, 2.0 * SIDE, float(SIDE), 1.0, 1.0)
    each = found("cat", 0.9, (0, 0, 9, 9), [[1, 7], [1, 9]])
    assert entropy(replace(each, geometry=padded)) == pytest.approx(1)
    assert entropy(replace(each, heatmap=torch.ones(2, 2), geometry=padded)) == pytest.approx(1)


def look(index: int, category: str, score: float, energy: float, entropy: float) -> Look:
    return Look("a", "a", index, category, score, energy, entropy)


def test_what_is_unusual_for_its_category_is_told() -> None:
    findings, looks = Findings(10), Looks(10)
    for place in range(30):
        spread = (place % 3 - 1) / 10
        looks.add(look(place, "cat", 0.8, 0.8 + spread, 0.5 + spread / 10), findings)
        looks.add(look(100 + place, "dog", 0.8, 0.05, 0.5), findings)
    looks.add(look(200, "cat", 0.5, 0.2, 0.5), findings)
    looks.add(look(201, "cat", 0.5, 0.32, 0.95), findings)
    looks.add(look(202, "dog", 0.96, 0.04, 0.5), findings)
    looks.finish(findings)
    told = [(each.finding.flag, each.finding.index) for each in findings.all()]
    # All dogs are low, as is usual for them; one of them is sure with it.
    assert told == [(OUTSIDE, 202), (SCATTERED, 201), (LOW_ENERGY, 200)]
    severities = [each.finding.severity for each in findings.all()]
    assert severities == pytest.approx([0.96 * 0.96, 0.5 * (0.95 - 0.5005) / 0.4995, 0.5 * 0.8])
    assert findings.all()[2].finding.says == (
        "cat 0.50: 0.20 of its map lies in its box, usual is 0.80"
    )
    assert dict(findings.counts) == {
        **{(OUTSIDE, "dog"): 1, (LOW_ENERGY, "cat"): 1, (SCATTERED, "cat"): 1}
    }


def test_a_category_that_is_seldom_is_held_against_all() -> None:
    findings, looks = Findings(2), Looks(2)
    for place in range(40):
        looks.add(look(place, "cat", 0.8, 0.8, 0.5), findings)
    for place in range(5):
        looks.add(look(place, "dog", 0.8, 0.1 + place / 100, 0.5), findings)
    looks.finish(findings)
    assert looks.low("dog") == 0.3
    # All five are counted, and the two worst kept.
    assert dict(findings.counts) == {(LOW_ENERGY, "dog"): 5}
    assert [each.finding.index for each in findings.all()] == [0, 1]

"""What is usual for a category."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jobs.audit.triage.usual import BINS, NORMAL, Usual, place_of


def of(values: list[float]) -> Usual:
    found = Usual()
    for value in values:
        found.add(value)
    return found


def test_median_and_deviation_are_those_of_the_values() -> None:
    values = np.random.default_rng(0).beta(8, 3, 501)
    found, median = of(values.tolist()), float(np.median(values))
    assert found.median() == pytest.approx(median, abs=1 / BINS)
    expected = NORMAL * float(np.median(np.abs(values - median)))
    assert found.deviation() == pytest.approx(expected, abs=2 * NORMAL / BINS)
    assert math.isnan(of([]).median())


def test_what_is_unusual_by_hand() -> None:
    # Medians 0.8005, deviations 0.1 in the middle: limits 0.8005 - 3 * 1.4826 * 0.1 = 0.3557.
    found = of([0.6] * 4 + [0.7] * 7 + [0.8] * 7 + [0.9] * 7 + [1.0] * 4)
    assert (found.median(), found.deviation()) == pytest.approx((0.8005, 0.14826))
    assert found.low(0.5) == 0.355
    assert found.low(0.3) == 0.3
    assert found.high(0.9) == 1  # 1.245
    assert found.high(0.95) == 1
    assert of([0.2] * 19).low(0.3) == 0.3  # of so few the level alone decides
    assert of([0.2] * 20).low(0.3) == 0.14  # 0.2005 - 3 * 0.02


def test_counts_are_those_of_the_values() -> None:
    values = [0.0, 0.1, 0.2, 0.2, 0.2999, 0.3, 1.0]
    found = of(values)
    for limit in (0.0, 0.1, 0.2, 0.3, 1.0):
        assert found.below(limit) == sum(place_of(each) < round(limit * BINS) for each in values)
        assert limit == 1 or found.below(limit) == sum(each < limit for each in values)
        assert found.below(limit) + found.from_on(limit) == len(values)


def test_the_last_bin_holds_one() -> None:
    assert [place_of(each) for each in (0, 0.0009, 0.001, 0.999, 1, 1.1)] == [
        *(0, 0, 1, 999, 999, 999)
    ]

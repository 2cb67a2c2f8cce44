"""Differences that are more than chance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from jobs.audit.changes.statistics import TIGHT, TRIED, PairedDifferences, fewest_pictures, holm


def of(pictures: list[list[float]]) -> PairedDifferences:
    found = PairedDifferences()
    for each in pictures:
        found.add(each)
    return found


def test_means_and_errors_by_hand() -> None:
    found = of([[0.1, 0.3], [0.6], []])
    # Mean 1 / 3; sums less their share: 0.4 - 2/3, 0.6 - 1/3: both 4/15.
    assert (found.pictures, found.number) == (2, 3)
    assert found.mean() == pytest.approx(1 / 3)
    assert found.error() == pytest.approx(math.sqrt(2 * (4 / 15) ** 2 * 2) / 3)
    assert math.isnan(of([[0.5]]).error())
    assert math.isnan(of([]).mean())


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        ([], 1),
        ([0, 0], 1),
        ([1, 2, 4], 2 / 8),
        ([1, 0, 2, 4, 0], 2 / 8),
        ([1, -1], 1),
        ([3, 1, -1], 6 / 8),  # sums of 5, 3, 3, 1 and their opposites
        ([-0.1, -0.2, -0.3], 2 / 8),
        ([4, 2, -1], 4 / 8),
    ],
)
def test_signs_by_hand(sums: list[float], expected: float) -> None:
    assert of([[each] for each in sums]).p_value() == expected


def test_all_signs_are_tried() -> None:
    random = np.random.default_rng(0)
    for number in range(1, 11):
        values = random.normal(0.3, 1, number)
        tried = [
            abs(sum(sign * value for sign, value in zip(signs, values, strict=True)))
            for signs in itertools.product((-1, 1), repeat=number)
        ]
        expected = np.mean([each >= abs(values.sum()) - 1e-12 for each in tried])
        assert of([[each] for each in values]).p_value() == pytest.approx(expected)


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_beyond_that_the_bound_is_never_too_small(spread: float) -> None:
    random = np.random.default_rng(1)
    number = TRIED + 3
    signs = ((np.arange(2**number)[:, None] >> np.arange(number)) & 1) * 2.0 - 1
    for shift in (0.2, 0.6, 1.0):
        weights = np.exp(spread * random.normal(size=number))
        values = np.where(random.random(number) < shift, 1, -1) * weights
        exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) * (1 - 1e-9))
        bound = of([[each] for each in values]).p_value()
        assert exact <= bound * (1 + 1e-9)
        assert bound <= 1


def test_uneven_pictures_that_all_agree_are_no_chance() -> None:
    # Only two of 2^24 choices of signs reach that far, though one picture outweighs the others.
    found = of([[each] for each in (30.0, *[1.0] * 23)])
    assert 1.9 / 2**24 <= found.p_value() <= 2.1 / 2**24


def test_many_that_agree_are_no_chance_and_many_that_do_not_are() -> None:
    # z = sqrt(5000) / 10 = 7.07: 3.178 times P(|Z| >= 7.07), about 1.54e-12.
    many = [[0.01]] * 2750 + [[-0.01]] * 2250
    assert of(many).p_value() == pytest.approx(TIGHT * 1.537e-12, rel=0.01)
    assert of([[0.01], [-0.01]] * 50).p_value() == 1


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


def test_the_fewest_pictures_that_can_tell() -> None:
    assert [fewest_pictures(alpha) for alpha in (1, 0.5, 0.05, 0.01)] == [1, 2, 6, 8]
    assert of([[1.0]] * 5).p_value() > 0.05 >= of([[1.0]] * 6).p_value()


def test_where_nothing_changed_something_is_called_changed_at_most_as_often_as_asked() -> None:
    """Families of 20 figures, on few and on many pictures, of dependent and uneven boxes."""
    random = np.random.default_rng(2)
    families, alpha = 120, 0.1
    wrong = 0
    for _ in range(families):
        values = []
        for figure in range(20):
            pictures = (8, 12, 40, 100)[figure % 4]
            own = random.standard_t(2, pictures) * (random.random(pictures) < 0.7)
            found = of([[each] * (1 + place % 3) for place, each in enumerate(own)])
            values.append(found.p_value())
        wrong += min(holm(values)) <= alpha
    assert wrong / families <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / families)
    # One in the middle of such a family that did change is found.
    changed = of([[each] for each in 0.5 + random.standard_t(5, 200)]).p_value()
    assert holm([*values, changed])[-1] <= alpha

"""Shares and how sure they are: by hand, and beside a plain second implementation."""

from __future__ import annotations

import math

import pytest

from jobs.audit.proportions import binomial_tail, holm, wilson


def test_wilsons_interval() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for successes, number, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(successes, number) == pytest.approx((low, high), abs=5e-5)
    assert wilson(0, 0) == (0, 1)
    assert wilson(5, 5)[1] == pytest.approx(1)


@pytest.mark.parametrize(("successes", "number"), [(0, 5), (1, 5), (3, 5), (5, 5), (7, 40)])
def test_the_tail_of_a_binomial(successes: int, number: int) -> None:
    level = 0.02
    plain = sum(
        math.comb(number, each) * level**each * (1 - level) ** (number - each)
        for each in range(successes, number + 1)
    )
    assert binomial_tail(successes, number, level) == pytest.approx(plain)


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []

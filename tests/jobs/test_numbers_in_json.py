"""Numbers that JSON does not know."""

from __future__ import annotations

import math

from jobs.numbers_in_json import plain


def test_what_is_no_finite_number_becomes_none() -> None:
    value = {"a": (1, math.nan, [math.inf, {"b": -math.inf}]), "c": "nan", "d": 0.5}
    assert plain(value) == {"a": [1, None, [None, {"b": None}]], "c": "nan", "d": 0.5}

"""Outlines and run lengths to masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jobs.truth.masks import LARGEST, is_number, polygon_mask, run_length_mask


def test_polygons_by_hand() -> None:
    square, other = [1, 1, 4, 1, 4, 3, 1, 3], [5.0, 0, 6, 0, 6, 1, 5, 1]
    expected = np.zeros((4, 6), dtype=bool)
    expected[1:3, 1:4] = expected[0, 5] = True
    assert np.array_equal(polygon_mask([square, other], 4, 6), expected)


def test_run_lengths_by_hand() -> None:
    # Down the columns: one pixel that is none, then two, then the rest.
    expected = np.array([[False, False], [True, False], [True, False]])
    assert np.array_equal(run_length_mask([1, 2, 3], [3, 2], 3, 2), expected)
    # COCO's code: 48 is 0, so runs of 1, 2 and 3.
    assert np.array_equal(run_length_mask("123", [3, 2], 3, 2), expected)


@pytest.mark.parametrize(
    ("counts", "size", "said"),
    [
        ([1, 2], [3, 2], "of 6 pixels in all"),
        ([1, 2, 100_000], [3, 2], "of 6 pixels in all"),
        ([-1, 7], [3, 2], "whole run lengths"),
        ([1.5, 4.5], [3, 2], "whole run lengths"),
        (["1"], [3, 2], "expected numbers"),
        ("12", [3, 2], "pixel|RLE"),
        ("1o", [3, 2], "RLE"),
        ("0" * 200, [3, 2], "compressed"),
        ("é", [3, 2], "compressed"),
        ("123", [2, 3], r"size \[3, 2\], got \[2, 3\]"),
        ("123", "32", "size"),
        (None, [3, 2], "list or as COCO"),
    ],
)
def test_run_lengths_that_are_none(counts: Any, size: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run_length_mask(counts, size, 3, 2)


@pytest.mark.parametrize(
    ("polygons", "said"),
    [
        ([], "at least one"),
        ([[1, 1, 2, 2]], "at least three points"),
        ([[1, 1, 2, 2, 3, 3, 4]], "at least three points"),
        ([1, 1, 2, 2, 3, 3], "polygons x, y"),
        ([[1, 1, 2, 2, 3, 1e9]], "points in a picture of 6 x 4"),
        ([[1, 1, 2, 2, 3, float("nan")]], "expected numbers"),
        ([[1, 1, 2, 2, 3, 10**400]], "expected numbers"),
        ([[0, 0, 6, 4] * 200_000], "outlines of at most"),
    ],
)
def test_polygons_that_are_none(polygons: list[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        polygon_mask(polygons, 4, 6)


def test_pictures_without_pixels_or_with_too_many() -> None:
    for height, width in ((0, 5), (10**5, 10**5)):
        with pytest.raises(ValueError, match="expected a picture of 1 to 50,000,000 pixels"):
            polygon_mask([[1, 1, 2, 2, 3, 1]], height, width)


def test_numbers() -> None:
    values: list[Any] = [1, -1.5, True, "1", None, float("inf"), float("nan"), 10**400, LARGEST]
    assert [is_number(each) for each in values] == [True, True, *[False] * 7]

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from handlers.grid import BACKGROUND, Block, draw_grid, wrapped

FONT = ImageFont.load_default(12)
RED, LIME, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def square(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (200, 100), colour)


def places(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what has exactly this colour."""
    rows, columns = np.where((np.asarray(sheet) == colour).all(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_cells_stand_in_rows_and_columns() -> None:
    cells = [[square(RED), square(LIME)], [square(BLUE), square(RED)]]
    sheet = draw_grid([Block("", ["", ""], ["", ""], cells)])
    assert sheet.size == (8 + 2 * 208, 8 + 2 * 108)
    assert places(sheet, LIME) == (216, 8, 416, 108)
    assert places(sheet, BLUE) == (8, 116, 208, 216)


def test_titles_and_headings_take_room_of_their_own() -> None:
    blocks = [
        Block("first", ["a", "b"], ["gradcam"], [[square(RED), square(LIME)]]),
        Block("second", ["c"], ["gradcam"], [[square(BLUE)]]),
    ]
    sheet = draw_grid(blocks)
    red, lime, blue = (places(sheet, colour) for colour in (RED, LIME, BLUE))
    assert lime[0] - red[0] == 208
    assert (red[1], red[0]) == (lime[1], blue[0])
    assert red[0] > 8 + FONT.getlength("gradcam")
    assert blue[1] - red[3] == red[1]  # a title and a heading above both blocks
    heading = np.asarray(sheet.crop((red[0], 0, red[2], red[1])))
    assert (heading != BACKGROUND).any()


def test_small_pictures_leave_their_headings_room() -> None:
    sheet = draw_grid([Block("", ["a layer"], [""], [[Image.new("RGB", (10, 10), RED)]])])
    assert sheet.width == 120 + 16
    assert places(sheet, RED)[0] == 8 + 55


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("roi", 200, "roi"),
        ("head.classification_head.conv.0.0", 1000, "head.classification_head.conv.0.0"),
        ("head.classification_head.conv.0.0", 160, "head.classification_head.\nconv.0.0"),
        ("below the score threshold", 90, "below the score\nthreshold"),
        ("roi+pyramid", 50, "roi+\npyramid"),
        ("", 50, ""),
    ],
)
def test_long_texts_break_where_words_end(text: str, width: int, expected: str) -> None:
    assert wrapped(text, width, FONT) == expected


def test_a_word_that_is_too_long_breaks_anywhere() -> None:
    lines = wrapped("x" * 100, 60, FONT).split("\n")
    assert "".join(lines) == "x" * 100
    assert all(FONT.getlength(line) <= 60 for line in lines)

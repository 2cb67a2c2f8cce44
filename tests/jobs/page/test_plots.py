"""Where bars and points stand."""

from __future__ import annotations

import numpy as np

from jobs.page.plots import (
    BOTTOM,
    HEIGHT,
    LABELS,
    LEFT,
    RIGHT,
    TOP,
    VALUES,
    WIDTH,
    Bar,
    bars,
    histogram,
    line,
)

ROOM = WIDTH - LABELS - VALUES


def test_bars_are_as_long_as_their_values() -> None:
    own = [
        Bar("a", 4, "4"),
        Bar("a very long category", 1, "1"),
        Bar("c", None, "–"),
        Bar("d", 2, "2"),
    ]
    plot = bars("n", "Title", "Text.", own, "boxes", most=3)
    assert [mark.width for mark in plot.marks] == [ROOM, ROOM / 4, 0]
    assert [mark.label for mark in plot.marks] == ["a", "a very long ca…", "c"]
    assert plot.rows == (("a", "4"), ("a very long category", "1"), ("c", "–"), ("d", "2"))
    assert plot.more == 1
    assert bars("n", "", "", own, "", most=1, full=8).marks[0].width == ROOM / 2
    assert bars("n", "", "", [Bar("a", 0, "0")], "", most=1).marks[0].width == 0


def test_a_histograms_highest_bar_fills_it() -> None:
    plot = histogram("n", "", "", np.array([0, 2, 4, 0]))
    full = HEIGHT - BOTTOM - TOP
    assert [mark.height for mark in plot.marks] == [0, full / 2, full, 0]
    assert [mark.value for mark in plot.marks] == ["", "", "4", ""]
    assert plot.rows[1] == ("0.25 to 0.50", "2")
    assert plot.marks[1].x == LEFT + (WIDTH - LEFT - RIGHT) / 4 + 0.75


def test_a_line_has_gaps_where_nothing_was_measured() -> None:
    plot = line("n", "Score", ["1st", "2nd", "3rd", "4th"], [1.0, 0.5, None, 2.0])
    floor = HEIGHT - BOTTOM
    middle = (TOP + floor) / 2
    assert [mark.y for mark in plot.marks] == [middle, (middle + floor) / 2, TOP]
    assert plot.path.count("M") == 2
    assert plot.rows[2] == ("3rd", "–")
    assert "3 runs, from 0.500 to 2.00; the last is 2.00, the one before 0.500." in plot.text
    assert line("n", "", ["a", "b"], [0.0, 0.0]).marks[0].y == floor
    assert line("n", "", ["a", "b"], [-1.0, 1.0]).marks[0].y == floor

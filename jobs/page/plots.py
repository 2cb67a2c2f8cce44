"""Plots as numbers that a template draws: where bars, points and words stand, in units of SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.page.text import NOTHING, shown

WIDTH = 360
# Of a plot of bars.
LABELS, VALUES, LINE, BAR = 100, 80, 20, 12
# Of a histogram, and of a line.
HEIGHT, BOTTOM, TOP, LEFT, RIGHT = 150, 18, 20, 8, 8
POINT = 3.5
LONGEST_LABEL = 15


@dataclass(frozen=True)
class Mark:
    """A bar from (x, y), or a point at it. label, value: as text. tip: all of it, in words."""

    x: float
    y: float
    width: float = 0.0
    height: float = 0.0
    label: str = ""
    value: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Plot:
    """A plot. name: unique in the page. kind: "bars", "histogram" or "line". title, text: what it
    shows, and what it says, for those who do not see it. columns, rows: the same as a table. more:
    how many rows are in the table alone. room: of the longest bar."""

    name: str
    kind: str
    title: str
    text: str
    height: float
    marks: tuple[Mark, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    path: str = ""
    ticks: tuple[Mark, ...] = ()
    more: int = 0
    width: int = WIDTH
    room: int = WIDTH - LABELS - VALUES


@dataclass(frozen=True)
class Bar:
    """label: what it is of. value: its length; None for nothing. shown: the value as text."""

    label: str
    value: float | None
    shown: str


def bars(
    name: str, title: str, text: str, bars_: Sequence[Bar], column: str, most: int, full: float = 0
) -> Plot:
    """The first `most` bars, each on a line of its own; the table has them all.

    full: the value of the longest possible bar; 0 for the largest value.
    """
    full = full or max([each.value or 0.0 for each in bars_], default=0.0) or 1.0
    room = WIDTH - LABELS - VALUES
    marks = tuple(
        Mark(
            x=LABELS,
            y=place * LINE + (LINE - BAR) / 2,
            width=_rounded(room * (each.value or 0.0) / full),
            height=BAR,
            label=_cut(each.label),
            value=each.shown,
            tip=f"{each.label}: {each.shown}",
        )
        for place, each in enumerate(bars_[:most])
    )
    rows = tuple((each.label, each.shown) for each in bars_)
    height = max(1, len(marks)) * LINE
    more = max(0, len(bars_) - most)
    return Plot(name, "bars", title, text, height, marks, ("", column), rows, more=more)


def histogram(name: str, title: str, text: str, counts: NDArray[np.int64]) -> Plot:
    """How many boxes lie in each of the equal parts of 0 ... 1."""
    room, number = WIDTH - LEFT - RIGHT, len(counts)
    most = max(1, int(counts.max(initial=0)))
    step = room / number
    marks, rows = [], []
    for place, count in enumerate(counts.tolist()):
        height = (HEIGHT - BOTTOM - TOP) * count / most
        span = f"{place / number:.2f} to {(place + 1) / number:.2f}"
        marks.append(
            Mark(
                x=_rounded(LEFT + place * step + 0.75),
                y=_rounded(HEIGHT - BOTTOM - height),
                width=_rounded(step - 1.5),
                height=_rounded(height),
                value=f"{count:,}" if count == most else "",
                tip=f"{span}: {count:,}",
            )
        )
        rows.append((span, f"{count:,}"))
    ticks = tuple(
        Mark(x=LEFT + room * share, y=HEIGHT - 4, label=f"{share:g}")
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    columns = ("from … to", "boxes")
    return Plot(
        name, "histogram", title, text, HEIGHT, tuple(marks), columns, tuple(rows), ticks=ticks
    )


def line(name: str, title: str, labels: Sequence[str], values: Sequence[float | None]) -> Plot:
    """A figure over time, from 0 or its least value up; a gap where it was not measured."""
    known = [each for each in values if each is not None]
    low, high = min(0.0, *known), max(known)
    if high == low:
        high = low + 1
    room = WIDTH - 2 * LEFT - 2 * RIGHT

    def place(number: int, value: float) -> tuple[float, float]:
        x = 2 * LEFT + room * (number / (len(values) - 1) if len(values) > 1 else 0.5)
        return _rounded(x), _rounded(TOP + (HEIGHT - BOTTOM - TOP) * (high - value) / (high - low))

    marks, pieces, open_ = [], [], False
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        if value is None:
            open_ = False
            continue
        x, y = place(number, value)
        pieces.append(f"{'L' if open_ else 'M'}{x:g} {y:g}")
        open_ = True
        marks.append(
            Mark(
                x, y, label=label, value=shown(float(value)), tip=f"{label}: {shown(float(value))}"
            )
        )
    before, last = (known[-2], known[-1]) if len(known) > 1 else (known[-1], known[-1])
    text = (
        f"{len(known)} runs, from {shown(float(min(known)))} to {shown(float(max(known)))};"
        f" the last is {shown(float(last))}, the one before {shown(float(before))}."
    )
    rows = tuple(
        (label, NOTHING if value is None else shown(float(value)))
        for label, value in zip(labels, values, strict=True)
    )
    ticks = tuple(
        Mark(x=place(number, low)[0], y=HEIGHT - 4, label=labels[number][:10])
        for number in sorted({0, len(labels) - 1})
    )
    return Plot(
        name,
        "line",
        title,
        text,
        HEIGHT,
        tuple(marks),
        ("run", title),
        rows,
        " ".join(pieces),
        ticks,
    )


def _rounded(value: float) -> float:
    return round(value, 2)


def _cut(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"

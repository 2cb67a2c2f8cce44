"""An evaluation's summary as Markdown: tables, and what their figures are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from handlers.metrics.localization import BY_BOX, BY_OBJECTS
from jobs.evaluation.measure import CONTROLS, CURVES, OVERLAP
from jobs.evaluation.subjects import LEAST_OVERLAP
from jobs.progress import counted
from jobs.scoring.summary import FEWER

LESS_IS_BETTER = ("compactness", "odi", "deletion")


def as_table(
    summary: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """What `summarised` gave of the rows, as Markdown. settings: as the record has them."""
    located = located_figures(summary)
    lines = [
        _what(next(iter(summary.values())), settings, rows),
        "",
        where_text(summary),
        "",
        *_means(summary, located),
        "",
        curves_text(settings["faithfulness"], rows),
        "",
        *_means(summary, CURVES, "seconds"),
    ]
    for control in (each for each in CONTROLS if each in summary):
        for names in (located, CURVES):
            lines += [
                "",
                f"Less {control.removeprefix('control: ')}, box by box ({better(names)}):",
                "",
                *_means(
                    {
                        name: own[f"less {control}"]
                        for name, own in summary.items()
                        if name not in CONTROLS
                    },
                    names,
                ),
            ]
    return "\n".join(lines) + "\n"


def better(names: Sequence[str]) -> str:
    """Of differences of these figures, which are better."""
    less = [each for each in LESS_IS_BETTER if any(name.startswith(each) for name in names)]
    listed = " and ".join([*filter(None, [", ".join(less[:-1])]), *less[-1:]])
    return f"negative is better of {listed}; positive of the others"


def measured_boxes(rows: Iterable[Mapping[str, Any]]) -> int:
    """How many boxes rows are of."""
    return len({(row["picture"], row["index"]) for row in rows})


def _what(
    some: Mapping[str, Any], settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> str:
    pictures = len({row["picture"] for row in rows})
    which = (
        f"{settings['detector']}, {counted(measured_boxes(rows), 'box', 'boxes')} scoring more than"
        f" {settings['score_threshold']:g} on {counted(pictures, 'picture')}"
    )
    if OVERLAP in some:
        which += (
            f", each matched one to one with a true object of its category (IoU at least"
            f" {LEAST_OVERLAP:g}; {_shown(some[OVERLAP])})"
        )
    return f"{which}; mean and standard error."


def located_figures(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The figures of where maps lie that at least one map has."""
    some = next(iter(summary.values()))
    return [
        name
        for name in (*BY_BOX, *BY_OBJECTS)
        if name in some and not all(math.isnan(own[name][0]) for own in summary.values())
    ]


def where_text(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """What the `located_figures` are, and of how many boxes."""
    located = located_figures(summary)
    truth = any(OVERLAP in own for own in summary.values())
    text = (
        f"Where maps lie on {'the true object' if truth else 'the box'}, on the picture's pixels:"
        " pointing game, energy (the share of the map inside, from its least value on), VEA (mean"
        " IoU of what is over .1, ... .9 of the maximum with the filled box), and compactness"
        " (distance from the peak in halves of the box's diagonal; less is better)."
    )
    if "vea" in located:
        text += " mask, and vea alone: against the object's mask."
    elif truth:
        text += " No object has a mask."
    if "odi" in located:
        text += " odi: the other objects' share in what lies on objects; less is better."
    fewer = {
        name: min(own[FEWER][name] for own in summary.values() if name in own[FEWER])
        for name in located
        if any(name in own[FEWER] for own in summary.values())
    }
    if fewer:
        numbers = ", ".join(f"{_title(name)} {number}" for name, number in fewer.items())
        text += f" Not every object has a mask, or another beside it; boxes whose do: {numbers}."
    return text


def curves_text(how: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Fill, filter and step of deletion and insertion, and what is raw. how: FaithfulnessOptions by
    name, as the record has them."""
    blurred = np.nanmean([row["blurred"] for row in rows])
    moved = "equal numbers of pixels"
    if how["growth"] != 1:
        moved = f"shares of the pixels growing with the power {how['growth']:g}"
    return (
        f"Fill: deletion goes to the mean colour. Filter: insertion begins with a blur (Gaussian,"
        f" {how['blur']:g} of the longer side, where {blurred:.2f} of a detection is left). Step:"
        f" {how['steps']} points, from one to the next {moved}. Areas are divided by their value on"
        " the whole picture, but for raw ones, which follow the score that a detection starts with;"
        " without a mark: D-RISE's similarity, score: IoU times the class's probability."
    )


def _means(
    summary: Mapping[str, Mapping[str, Any]], names: Sequence[str], seconds: str = ""
) -> Iterator[str]:
    header = ["map", *map(_title, names), *(["s a picture"] if seconds else [])]
    rows = (
        [
            name,
            *(_shown(own[each]) for each in names),
            *([_shown(own[seconds], False)] if seconds else []),
        ]
        for name, own in summary.items()
    )
    for cells in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(cells)} |"


def _title(name: str) -> str:
    return name.replace("_", ", ")


def _shown(figure: Sequence[float], with_error: bool = True) -> str:
    mean, error = figure
    if math.isnan(mean):
        return "-"
    if math.isnan(error) or not with_error:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {error:.3f}"

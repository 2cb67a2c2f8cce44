"""Rows of figures summarised: means, standard errors, paired differences from the controls."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np

from jobs.evaluation.measure import CONTROLS, figure_names, paired

# Of a summary: how many boxes have a figure, by its name, where not all do.
FEWER = "boxes"


def summarised(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By map the rows' figures and "seconds" as [mean, standard error], and "less CONTROL", the
    paired differences from a control, likewise.

    rows: as `jobs.evaluation.measure.measure` gives them, each with its "picture".
    A figure is that of the boxes that have it as a number; FEWER says of how many, where
    these are not all.
    """
    by_map: dict[str, dict[tuple[str, int], Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_map[row["map"]][row["picture"], row["index"]] = row
    names = [name for name in figure_names(True) if all(name in row for row in rows)]
    found: dict[str, dict[str, Any]] = {}
    for name, own in by_map.items():
        places = list(own)
        clusters = [picture for picture, _ in places]
        values = {each: [own[place][each] for place in places] for each in (*names, "seconds")}
        figures: dict[str, Any] = {
            each: mean_and_error(several, clusters) for each, several in values.items()
        }
        counts = {each: _numbers(several) for each, several in values.items()}
        figures[FEWER] = {each: count for each, count in counts.items() if count < len(places)}
        for control in CONTROLS:
            if control in by_map and name not in CONTROLS:
                theirs = by_map[control]
                figures[f"less {control}"] = {
                    each: mean_and_error(
                        [own[place][each] - theirs[place][each] for place in places], clusters
                    )
                    for each in paired(names)
                }
        found[name] = figures
    return found


def mean_and_error(values: Sequence[float], clusters: Sequence[str]) -> tuple[float, float]:
    """The mean of what is a number, and its standard error (not a number where there is one cluster
    alone): values of one cluster, the boxes of a picture, are taken as dependent. Of one value a
    cluster it is the usual error."""
    array = np.array(values, dtype=np.float64)
    known = ~np.isnan(array)
    if not known.any():
        return math.nan, math.nan
    array = array[known]
    mean = float(array.mean())
    sums: dict[str, float] = defaultdict(float)
    for value, cluster in zip(array - mean, compress(clusters, known), strict=True):
        sums[cluster] += float(value)
    number = len(sums)
    if number < 2:
        return mean, math.nan
    spread = sum(each**2 for each in sums.values()) * number / (number - 1)
    return mean, math.sqrt(spread) / len(array)


def _numbers(values: Sequence[float]) -> int:
    return sum(not math.isnan(each) for each in values)

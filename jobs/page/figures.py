"""A run's figures, added up from its rows, a shard at a time."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jobs.saved_run import SavedRun
from jobs.worker.commit import all_stats, read_table

COLUMNS = ["key", "index", "layer", "category", "score", "energy_in_box"]
BOX = ("key", "index", "category")
BINS = 20


@dataclass
class Mean:
    """A mean and its standard error, of finite values that come in pieces."""

    number: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """A piece."""
        values = values[np.isfinite(values)]
        self.number += len(values)
        self.total += float(values.sum())
        self.squares += float((values**2).sum())

    @property
    def value(self) -> float | None:
        """The mean; None of no values."""
        return self.total / self.number if self.number else None

    @property
    def error(self) -> float | None:
        """Its standard error; None of fewer than two values."""
        if self.number < 2:
            return None
        left = self.squares - self.total**2 / self.number
        return math.sqrt(max(0.0, left) / (self.number - 1) / self.number)


@dataclass
class OfCategory:
    """Boxes of one category: their mean score, and their maps' mean energy in the box. flagged: how
    many of them have a finding."""

    score: Mean = field(default_factory=Mean)
    energy: Mean = field(default_factory=Mean)
    flagged: int = 0

    @property
    def boxes(self) -> int:
        """How many."""
        return self.score.number


@dataclass
class Figures:
    """What a run's boxes are like; where each has maps on several layers, the first layer counts.

    scores, energies: how many boxes lie in each of BINS equal parts of 0 ... 1.
    """

    score: Mean = field(default_factory=Mean)
    energy: Mean = field(default_factory=Mean)
    categories: dict[str, OfCategory] = field(default_factory=dict)
    scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    energies: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, table: pa.Table, flagged: Container[tuple[str, int]] = ()) -> None:
        """Rows of detections.parquet, at least the COLUMNS, of one layer.

        flagged: the boxes that have a finding, each by (key, index).
        """
        score, energy = (numbers(table, name) for name in ("score", "energy_in_box"))
        self.score.add(score)
        self.energy.add(energy)
        self.scores += binned(score)
        self.energies += binned(energy)
        names = np.array(table["category"].to_pylist(), dtype=object)
        for name in dict.fromkeys(names):
            own = names == name
            category = self.categories.setdefault(name, OfCategory())
            category.score.add(score[own])
            category.energy.add(energy[own])
        if flagged:
            for key, index, name in zip(*(table[each].to_pylist() for each in BOX), strict=True):
                self.categories[name].flagged += (key, index) in flagged


def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column of numbers, float64 [N]."""
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def binned(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many finite values lie in each of BINS equal parts of 0 ... 1; what lies beyond counts to
    the outer ones."""
    values = values[np.isfinite(values)]
    places = np.clip((values * BINS).astype(np.int64), 0, BINS - 1)
    return np.bincount(places, minlength=BINS).astype(np.int64)


def shards(run: SavedRun) -> Iterator[tuple[int, dict[str, Any], pa.Table | None]]:
    """Each shard's number, its stats, and the COLUMNS of its rows; None where it has no rows."""
    for number, stats in all_stats(run.output, range(run.plan.shards)):
        if stats is None:
            continue
        table = None
        if stats["detections"]:
            data = read_table(run.output, stats, "detections.parquet")
            table = pq.read_table(pa.BufferReader(data), columns=COLUMNS)
        yield number, stats, table


def of_one_layer(table: pa.Table) -> pa.Table:
    """Each box once: the rows of the layer that the first row is of."""
    return table.filter(pc.equal(table["layer"], table["layer"][0]))


def figures_of(run: SavedRun) -> Figures:
    """Those of a whole run."""
    found = Figures()
    for _, _, table in shards(run):
        if table is not None:
            found.add(of_one_layer(table))
    return found

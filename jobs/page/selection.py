"""Which pictures the gallery shows, and in what order: the worst first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from jobs.page.audits import Flags
from jobs.page.figures import Figures, numbers, of_one_layer, shards
from jobs.saved_run import SavedRun, printable_names


@dataclass(frozen=True, order=True)
class Standing:
    """How bad a picture is, for comparison: of two the worse is the larger.

    severity: of its worst finding, 0 ... 1; -1 without one. doubt: the most that a box's score
    claims beyond what its map shows in the box, score * (1 - energy), 0 ... 1; -1 without a box.
    place: minus its place in the listing, so that of equals the first comes first.
    """

    severity: float
    doubt: float
    place: int


@dataclass(frozen=True)
class Chosen:
    """What the gallery shows. ranks: places in the gallery from 0, by shard and key. pictures: how
    many there were to choose from; boxes: how many of the run's are in the gallery."""

    ranks: Mapping[tuple[int, str], int]
    pictures: int
    boxes: int
    figures: Figures


def chosen(run: SavedRun, flags: Flags, most: int) -> Chosen:
    """The `most` worst pictures of a run, and the figures of all its boxes, in one reading; few
    pictures are held at once."""
    figures, place = Figures(), 0
    severities = flags.severities()
    heap: list[tuple[Standing, int, str, int]] = []
    for number, doubts in _shards(run, figures, flags):
        for name, (doubt, several) in doubts.items():
            standing = Standing(severities.get(name, -1.0), doubt, -place)
            place += 1
            item = (standing, number, name, several)
            if len(heap) < most:
                heapq.heappush(heap, item)
            else:
                heapq.heappushpop(heap, item)
    heap.sort(reverse=True)
    boxes = sum(several for *_, several in heap)
    ranks = {(number, name): rank for rank, (_, number, name, _) in enumerate(heap)}
    return Chosen(ranks, place, boxes, figures)


def _shards(
    run: SavedRun, figures: Figures, flags: Flags
) -> Iterator[tuple[int, dict[str, tuple[float, int]]]]:
    """Of each shard the pictures that did not fail, in their order: doubt and number of boxes."""
    for number, stats, table in shards(run):
        found = dict.fromkeys(printable_names(run, number, stats), (-1.0, 0))
        if table is not None:
            table = of_one_layer(table)
            figures.add(table, flags.by_box)
            doubts = numbers(table, "score") * (1 - numbers(table, "energy_in_box"))
            for key, doubt in zip(table["key"].to_pylist(), np.nan_to_num(doubts), strict=True):
                name = str(key)
                worst, several = found.get(name, (-1.0, 0))
                found[name] = (max(worst, float(doubt)), several + 1)
        yield number, found

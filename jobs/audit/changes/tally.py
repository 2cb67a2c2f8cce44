"""Sums over all pictures of what changed, by category, and the pictures that changed most."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.audit.changes.differences import MATCHED, OUT_OF_REACH, Change, mean
from jobs.audit.changes.statistics import PairedDifferences, fewest_pictures, holm

# Figures that a run may have more or less of, so that chance can be told from change.
TESTED = ("detections", "score", "size", "energy")
# How far matched detections are from what they were: 1 - IoU, 1 - correlation, in diagonals.
DISTANCES = ("box", "map", "peak")


@dataclass
class CategoryTally:
    """One category's counts and differences.

    counts: by kind, and "before" and "after", detections within both runs' reach. differences:
    TESTED; "detections" for each picture with any of the category, the others for each matched
    detection. distances: DISTANCES.
    """

    counts: Counter[str] = field(default_factory=Counter)
    differences: dict[str, PairedDifferences] = field(
        default_factory=lambda: {name: PairedDifferences() for name in TESTED}
    )
    distances: dict[str, PairedDifferences] = field(
        default_factory=lambda: {name: PairedDifferences() for name in DISTANCES}
    )

    def add(self, number: int, found: Sequence[Change]) -> None:
        """One picture's changes of this category. number: detections after less before."""
        self.counts.update(each.kind for each in found)
        self.differences["detections"].add([float(number)])
        matched = [each for each in found if each.kind == MATCHED]
        energies = [each.energy for each in matched]
        self.differences["score"].add([each.score for each in matched])
        self.differences["size"].add([each.growth for each in matched])
        self.differences["energy"].add([each for each in energies if each is not None])
        correlations = [each.correlation for each in matched]
        shifts = [mean(_shifts(each)) for each in matched]
        self.distances["box"].add([1 - each.iou for each in matched])
        self.distances["map"].add([1 - each for each in correlations if each is not None])
        self.distances["peak"].add([each for each in shifts if each is not None])


@dataclass(frozen=True)
class Test:
    """Whether one figure of one category changed.

    category: None for all together. mean, error: of the differences. p: None where there are too
    few pictures. corrected: p for all tests together (Holm).
    """

    category: str | None
    figure: str
    mean: float
    error: float
    pictures: int
    p: float | None
    corrected: float | None


@dataclass(frozen=True)
class ChangedPicture:
    """change: the sum of its detections' sizes. changes: those with any, the largest first."""

    key: str
    change: float
    changes: tuple[Change, ...]


class Tally:
    """Everything of two runs, without their rows.

    top: how many pictures are kept. categories: by name. everything: all together.
    """

    def __init__(self, top: int) -> None:
        self.top = top
        self.everything = CategoryTally()
        self.categories: dict[str, CategoryTally] = {}
        self.changed_pictures = 0
        self._worst: list[tuple[float, int, ChangedPicture]] = []
        self._order = 0

    def add(self, key: str, found: Sequence[Change]) -> None:
        """One picture's changes."""
        by_category: dict[str, list[Change]] = defaultdict(list)
        numbers: Counter[str] = Counter()
        for each in found:
            if each.kind == OUT_OF_REACH:
                by_category[each.row["category"]].append(each)
                continue
            before, after = each.before, each.after
            if before is not None:
                numbers[before["category"]] -= 1
                self._of(before["category"]).counts["before"] += 1
                self.everything.counts["before"] += 1
            if after is not None:
                numbers[after["category"]] += 1
                self._of(after["category"]).counts["after"] += 1
                self.everything.counts["after"] += 1
            # What turned into another category counts with what it was.
            by_category[(each.row if before is None else before)["category"]].append(each)
        for name in numbers.keys() | by_category.keys():
            self._of(name).add(numbers[name], by_category[name])
        if found:
            self.everything.add(sum(numbers.values()), found)
        self._keep(key, found)

    def _of(self, category: str) -> CategoryTally:
        return self.categories.setdefault(category, CategoryTally())

    def _keep(self, key: str, found: Sequence[Change]) -> None:
        changed = sorted((each for each in found if each.size), key=lambda each: -each.size)
        if not changed:
            return
        self.changed_pictures += 1
        self._order += 1
        change = math.fsum(each.size for each in changed)
        item = change, -self._order, ChangedPicture(key, change, tuple(changed))
        if len(self._worst) < self.top:
            heapq.heappush(self._worst, item)
        else:
            heapq.heappushpop(self._worst, item)

    def worst(self) -> list[ChangedPicture]:
        """The pictures that changed most, first; of equals in the order of their keys."""
        return [each for _, _, each in sorted(self._worst, key=lambda item: item[:2], reverse=True)]

    def tests(self, alpha: float) -> list[Test]:
        """Every figure of every category, the categories by name, all together first."""
        least = fewest_pictures(alpha)
        tallies: list[tuple[str | None, CategoryTally]] = [*sorted(self.categories.items())]
        if len(tallies) > 1:  # of a single category all together are the same again
            tallies.insert(0, (None, self.everything))
        asked = [
            (name, figure, own.differences[figure]) for name, own in tallies for figure in TESTED
        ]
        values = {
            place: each.p_value()
            for place, (_, _, each) in enumerate(asked)
            if each.pictures >= least
        }
        corrected = dict(zip(values, holm(list(values.values())), strict=True))
        return [
            Test(
                *(name, figure, each.mean(), each.error(), each.pictures),
                *(values.get(place), corrected.get(place)),
            )
            for place, (name, figure, each) in enumerate(asked)
        ]


def _shifts(change: Change) -> list[float]:
    found = (each.map.peak_shift for each in change.layers)
    return [each for each in found if each is not None]

"""Precision over recall of each category's detections, and the area under it as VOC has it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.scoring.matching import FALSE, IGNORED, matched
from jobs.truth.objects import Objects

RECALLS = np.arange(11) * 0.1  # VOC 2007's steps


@dataclass(frozen=True)
class Curve:
    """One category's detections, the surest first; those that count neither way are not among them.

    scores: float64 [N], falling. correct: bool [N], whether each found an object that no surer one
    had found. objects: how many there are to find, at least 0.
    """

    scores: NDArray[np.float64]
    correct: NDArray[np.bool_]
    objects: int

    @classmethod
    def of(cls, scores: NDArray[np.float64], correct: NDArray[np.bool_], objects: int) -> Curve:
        """Of detections in any order; of equal scores the first stays first."""
        order = np.argsort(-scores, kind="stable")
        return cls(scores[order], correct[order], objects)

    @property
    def hits(self) -> NDArray[np.int64]:
        """Objects found by the detections up to each: [N]."""
        return np.cumsum(self.correct, dtype=np.int64)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Of the detections up to each the share that is correct: [N], 0 ... 1."""
        return self.hits / np.arange(1, len(self.correct) + 1)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Of the objects the share that is found up to each: [N], 0 ... 1; not a number where
        there are none."""
        return self.hits / (self.objects or math.nan)

    def positives(self, score_threshold: float = -math.inf) -> tuple[int, int]:
        """How many detections are correct, and how many are not, of those that score at least so
        much."""
        number = int(np.searchsorted(-self.scores, -score_threshold, side="right"))
        correct = int(self.correct[:number].sum())
        return correct, number - correct


def voc_every_point(curve: Curve) -> float:
    """Area under precision over recall, 0 ... 1, as VOC has it since 2010: each recall counts with
    the best precision at that recall or beyond (Everingham et al. 2015). Not a number where there
    are no objects."""
    if not curve.objects:
        return math.nan
    best = np.maximum.accumulate(curve.precision[::-1])[::-1]
    # Recall rises by one object's share at each hit and nowhere else.
    return float(best[curve.correct].sum() / curve.objects)


def voc_11_point(curve: Curve) -> float:
    """The mean, 0 ... 1, of the best precision at recall 0, 0.1, ... 1 or beyond, as VOC had it in
    2007 (Everingham et al. 2010). Not a number where there are no objects.

    The steps are multiples of 0.1 in floating point, as in the programs that others' figures come
    from: 6 * 0.1 is a little more than 9 / 15, so 9 objects of 15 do not reach that step.
    """
    if not curve.objects:
        return math.nan
    recall, precision = curve.recall, curve.precision
    return float(np.mean([precision[recall >= step].max(initial=0.0) for step in RECALLS]))


def mean_over_categories(values: Iterable[float]) -> float:
    """The mean of what is a number: categories without objects have no average precision. Not a
    number if none has."""
    numbers = [each for each in values if not math.isnan(each)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


class Curves:
    """Gathers detections and objects picture by picture; 9 bytes a detection are held.

    least_overlap, pixel: as for `jobs.scoring.matching.matched`.
    """

    def __init__(self, least_overlap: float = 0.5, pixel: float = 0.0) -> None:
        self.least_overlap = least_overlap
        self.pixel = pixel
        self._scores: dict[str, array[float]] = {}
        self._correct: dict[str, array[int]] = {}
        self._objects: dict[str, int] = {}

    def add(
        self,
        boxes: NDArray[np.float64],
        categories: Sequence[str],
        scores: NDArray[np.float64],
        objects: Objects,
    ) -> None:
        """One picture's detections, boxes [N, 4], categories and scores [N], and its objects, of
        which difficult ones and crowds count neither way."""
        places = matched(boxes, categories, scores, objects, self.least_overlap, self.pixel)
        for category, score, place in zip(categories, scores, places, strict=True):
            self._open(category)
            if place != IGNORED:
                self._scores[category].append(float(score))
                self._correct[category].append(int(place != FALSE))
        counted = ~(objects.difficult | objects.crowd)
        for category, counts in zip(objects.categories, counted, strict=True):
            self._open(category)
            self._objects[category] += bool(counts)

    def _open(self, category: str) -> None:
        if category not in self._objects:
            self._scores[category], self._correct[category] = array("d"), array("b")
            self._objects[category] = 0

    def by_category(self) -> dict[str, Curve]:
        """The curve of every category that was met, in the order of their names."""
        return {
            name: Curve.of(
                np.array(self._scores[name], dtype=np.float64),
                np.array(self._correct[name], dtype=np.bool_),
                self._objects[name],
            )
            for name in sorted(self._objects)
        }

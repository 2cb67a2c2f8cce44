"""What changed on one picture between two runs, detection by detection."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.audit.changes import tolerances
from jobs.audit.changes.maps import MapChange, map_change
from jobs.audit.changes.pairing import agreement, pairs
from jobs.saved_run import Row, SavedPicture

MATCHED, TURNED = "matched", "category changed"
APPEARED, DISAPPEARED = "appeared", "disappeared"
# In one run alone, where the other could not have listed it.
OUT_OF_REACH = "out of reach"


@dataclass(frozen=True)
class LayerChange:
    """One layer's map of a matched detection. energy: the difference of energy_in_box."""

    layer: str
    map: MapChange
    energy: float


@dataclass(frozen=True)
class Change:
    """What became of one detection.

    kind: MATCHED, TURNED (matched with one of another category), APPEARED, DISAPPEARED, or
    OUT_OF_REACH. before, after: a row of each run, None where it has none; one of them is there.
    iou: of the boxes, 1 where they differ by rounding. score: after less before. growth: the
    natural logarithm of the areas' ratio. These three are 0 unless it was matched.
    layers: of each layer that both runs have.
    """

    kind: str
    before: Row | None
    after: Row | None
    iou: float = 0.0
    score: float = 0.0
    growth: float = 0.0
    layers: tuple[LayerChange, ...] = ()

    @property
    def row(self) -> Row:
        """After's, or before's where it disappeared."""
        found = self.after if self.after is not None else self.before
        assert found is not None
        return found

    @property
    def sure(self) -> float:
        """The higher score of the two."""
        return max(float(row["score"]) for row in (self.before, self.after) if row is not None)

    @property
    def correlation(self) -> float | None:
        """The mean over layers, None where no maps were compared."""
        return mean([each.map.correlation for each in self.layers])

    @property
    def energy(self) -> float | None:
        """The mean over layers, None where no maps were compared."""
        return mean([each.energy for each in self.layers])

    @property
    def size(self) -> float:
        """How much changed, 0 ... 1: of a detection in one run alone its score; of a matched one
        the difference of scores, and its score times 1 - IoU and times 1 - correlation, together at
        most its score; of one whose category changed its score; nothing out of reach."""
        if self.kind == OUT_OF_REACH:
            return 0.0
        if self.kind != MATCHED:
            return self.sure
        lost = 0.0 if self.correlation is None else 1 - max(self.correlation, 0.0)
        return min(self.sure, abs(self.score) + self.sure * (1 - self.iou + lost))


@dataclass(frozen=True)
class Reach:
    """Which detections a run lists.

    threshold: of scores. category: None for all. most: of one picture.
    """

    threshold: float
    category: str | None
    most: int

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Reach:
        """Of a run, by the options of its record."""
        several = options.get("candidates") or 0
        if several or options.get("box"):  # these are listed whatever they score
            return cls(0.0, options.get("category"), several or 1)
        limits = options.get("score_threshold"), options.get("max_detections")
        threshold = 0.0 if limits[0] is None else float(limits[0])
        most = 10**9 if limits[1] is None or options.get("sum_boxes") else int(limits[1])
        return cls(threshold, options.get("category"), most)

    def holds(self, row: Row, listed: Sequence[Row]) -> bool:
        """Whether the run would surely have listed another run's detection, had it found it: one
        more on a picture of which it lists these. One that scores as its threshold, but for
        rounding, it might not."""
        floor = self.threshold
        if len(listed) >= self.most:
            floor = max(floor, min(float(each["score"]) for each in listed))
        category = self.category in (None, row["category"])
        return category and float(row["score"]) > floor + tolerances.SCORE


def changes(
    before: SavedPicture, after: SavedPicture, reaches: tuple[Reach, Reach], least: float
) -> list[Change]:
    """What became of every detection of a picture: the matched ones, then the others.

    reaches: of the two runs. least: from which IoU on boxes are one detection.
    """
    sides = detections(before.rows), detections(after.rows)
    heads = tuple([rows[0] for rows in side] for side in sides)
    overlap = agreement(_boxes(heads[0]), _boxes(heads[1]))
    categories = [row["category"] for row in heads[0]], [row["category"] for row in heads[1]]
    scores = [row["score"] for row in heads[0]], [row["score"] for row in heads[1]]
    found = pairs(overlap, categories, scores, least)
    result = [
        _matched(before, after, (sides[0][one], sides[1][other]), float(overlap[one, other]))
        for one, other in found
    ]
    for place, row in enumerate(heads[0]):
        if place not in {one for one, _ in found}:
            held = reaches[1].holds(row, heads[1])
            result.append(Change(DISAPPEARED if held else OUT_OF_REACH, row, None))
    for place, row in enumerate(heads[1]):
        if place not in {other for _, other in found}:
            held = reaches[0].holds(row, heads[0])
            result.append(Change(APPEARED if held else OUT_OF_REACH, None, row))
    return result


def detections(rows: Iterable[Row]) -> list[list[Row]]:
    """A picture's rows by detection: each has one for each of its layers."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["index"], []).append(row)
    return list(found.values())


def mean(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return math.fsum(values) / len(values) if values else None


def _boxes(rows: Sequence[Row]) -> NDArray[np.float64]:
    edges = [[row[name] for name in ("x1", "y1", "x2", "y2")] for row in rows]
    return np.array(edges, dtype=np.float64).reshape(-1, 4)


def _matched(
    before: SavedPicture, after: SavedPicture, rows: tuple[list[Row], list[Row]], iou: float
) -> Change:
    one, other = rows[0][0], rows[1][0]
    same = one["category"] == other["category"]
    areas = [float(np.prod(box[2:] - box[:2])) for box in _boxes([one, other])]
    moved = iou < 1 and min(areas) > 0
    return Change(
        MATCHED if same else TURNED,
        one,
        other,
        iou,
        tolerances.beyond(float(other["score"]) - float(one["score"]), tolerances.SCORE),
        math.log(areas[1] / areas[0]) if moved else 0.0,
        tuple(
            LayerChange(
                second["layer"],
                map_change(before.explanation(first), after.explanation(second)),
                tolerances.beyond(
                    float(second["energy_in_box"]) - float(first["energy_in_box"]),
                    tolerances.ENERGY,
                ),
            )
            for first, second in _layers(*rows)
        ),
    )


def _layers(before: Sequence[Row], after: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of one layer; of two runs with a layer each these, whatever their names."""
    if len(before) == len(after) == 1:
        return [(before[0], after[0])]
    others = {row["layer"]: row for row in after}
    return [(row, others[row["layer"]]) for row in before if row["layer"] in others]

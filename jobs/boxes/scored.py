"""Boxes of maps held against the truth: one list of detections at each threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.images import Geometry
from handlers.metrics.controls import gaussian_in_box
from handlers.schema import Explanation
from jobs.boxes.box_accuracy import best_overlaps
from jobs.boxes.map_boxes import MapBoxes, boxes_of_map, chosen
from jobs.boxes.options import BoxStep
from jobs.boxes.saved_maps import MappedPicture
from jobs.scoring.matching import matched
from jobs.truth.objects import Objects

MAP = "map"
MIDDLE = "control: Gaussian at the picture's middle"
IN_BOX = "control: Gaussian in the box"
# The detector itself, with boxes of no map.
OWN = ""


@dataclass(frozen=True)
class Detected:
    """What one kind of map detects, at all thresholds, picture by picture.

    thresholds: of a detector's own boxes one, None. picture, category, threshold: int64 [D],
    places. index: int64 [D], the detection's in its picture. score: float64 [D]; of one map's
    boxes all alike, that with the highest peak first. boxes: float64 [D, 4]. peak: float64 [D], as
    MapBoxes. hit: int64 [D, IoUs], a true object's place in its picture, FALSE or IGNORED.
    item_picture: int64 [N]; an item is a picture and a category that it has an object of. largest,
    any: float64 [N, T], the best overlaps of the item's surest map.
    """

    thresholds: tuple[float | None, ...]
    picture: NDArray[np.int64]
    category: NDArray[np.int64]
    threshold: NDArray[np.int64]
    index: NDArray[np.int64]
    score: NDArray[np.float64]
    boxes: NDArray[np.float64]
    peak: NDArray[np.float64]
    hit: NDArray[np.int64]
    item_picture: NDArray[np.int64]
    largest: NDArray[np.float64]
    any: NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """All boxes, held against the truth.

    keys: the pictures', in order, as they are. splits: of each, or None. categories: the truth's
    that are studied. objects: each picture's. positives: int64 [pictures, categories], objects
    that count. kinds: by their names, MAP first. maps: how many.
    """

    keys: tuple[str, ...]
    splits: tuple[str | None, ...]
    categories: tuple[str, ...]
    objects: tuple[Objects, ...]
    positives: NDArray[np.int64]
    kinds: Mapping[str, Detected]
    maps: int


Boxes = Callable[[Explanation], MapBoxes]


def held_against_truth(
    pictures: Iterable[MappedPicture], categories: Sequence[str], step: BoxStep, has_boxes: bool
) -> Held:
    """Every map of every picture made into boxes, and these matched, as `matched` does.

    categories: those that are studied. has_boxes: the maps are of a detector's boxes.
    """
    kinds: dict[str, tuple[Boxes, tuple[float | None, ...]]] = {
        MAP: (lambda each: boxes_of_map(each.on_picture().numpy(), step), step.thresholds)
    }
    if step.controls:
        kinds[MIDDLE] = (_Middle(step).boxes, step.thresholds)
    if step.controls and has_boxes:
        kinds[IN_BOX] = (lambda each: _gaussian(each.geometry, each.box, step), step.thresholds)
        kinds[OWN] = (_own, (None,))
    lists = {
        name: _List(thresholds, tuple(categories), step) for name, (_, thresholds) in kinds.items()
    }
    keys, splits, objects, positives, maps = [], [], [], [], 0
    for number, picture in enumerate(pictures):
        keys.append(picture.key)
        splits.append(picture.split)
        objects.append(picture.objects)
        counted = _counted(picture.objects)
        positives.append([len(counted.get(name, ())) for name in categories])
        maps += len(picture.maps)
        for name, (make, _) in kinds.items():
            made = [make(each.explanation) for each in picture.maps]
            lists[name].add(number, picture, made, counted)
    return Held(
        keys=tuple(keys),
        splits=tuple(splits),
        categories=tuple(categories),
        objects=tuple(objects),
        positives=np.array(positives, dtype=np.int64).reshape(-1, len(categories)),
        kinds={name: each.detected() for name, each in lists.items()},
        maps=maps,
    )


def _counted(objects: Objects) -> dict[str, NDArray[np.float64]]:
    """The boxes [N, 4] that count, by category."""
    counts = ~(objects.difficult | objects.crowd)
    names = np.array(objects.categories, dtype=object)
    return {
        name: objects.boxes[counts & (names == name)]
        for name in dict.fromkeys(names[counts].tolist())
    }


@dataclass
class _Middle:
    """Boxes of a Gaussian at the picture's middle, made once for each size."""

    step: BoxStep
    known: dict[tuple[int, int], MapBoxes] = field(default_factory=dict)

    def boxes(self, explanation: Explanation) -> MapBoxes:
        geometry = explanation.geometry
        size = (geometry.picture_width, geometry.picture_height)
        if size not in self.known:
            box = (0.0, 0.0, float(size[0]), float(size[1]))
            self.known[size] = _gaussian(geometry, box, self.step)
        return self.known[size]


def _gaussian(
    geometry: Geometry, box: tuple[float, float, float, float], step: BoxStep
) -> MapBoxes:
    heat = gaussian_in_box(box, geometry.picture_height, geometry.picture_width)
    return boxes_of_map(heat.numpy(), step)


def _own(explanation: Explanation) -> MapBoxes:
    """A detector's box, as if it had been made of a map."""
    return MapBoxes(
        threshold=np.zeros(1, dtype=np.int64),
        boxes=np.array([explanation.box], dtype=np.float64),
        peak=np.ones(1),
        largest=np.ones(1, dtype=np.bool_),
    )


@dataclass
class _List:
    """One kind's detections, as they come."""

    thresholds: tuple[float | None, ...]
    categories: tuple[str, ...]
    step: BoxStep
    parts: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    items: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=list)

    def add(
        self,
        number: int,
        picture: MappedPicture,
        made: Sequence[MapBoxes],
        counted: Mapping[str, NDArray[np.float64]],
    ) -> None:
        self._add_items(number, picture, made, counted)
        if not made:
            return
        picked = [chosen(each, self.step.components) for each in made]
        owner = np.repeat(np.arange(len(picked)), [len(each) for each in picked])
        threshold, boxes, peak = (
            np.concatenate([getattr(each, name) for each in picked])
            for name in ("threshold", "boxes", "peak")
        )
        index = np.array([each.explanation.index for each in picture.maps])[owner]
        scores = np.array([each.explanation.score for each in picture.maps])[owner]
        names = np.array([each.category for each in picture.maps], dtype=object)[owner]
        hits = np.zeros((len(owner), len(self.step.iou)), dtype=np.int64)
        for place in np.unique(threshold):
            here = threshold == place
            for column, iou in enumerate(self.step.iou):
                hits[here, column] = matched(
                    boxes[here], list(names[here]), scores[here], picture.objects, iou
                )
        category = np.array([self.categories.index(name) for name in names], dtype=np.int64)
        own = np.full(len(owner), number)
        self.parts.append((own, category, threshold, index, scores, boxes, peak, hits))

    def _add_items(
        self,
        number: int,
        picture: MappedPicture,
        made: Sequence[MapBoxes],
        counted: Mapping[str, NDArray[np.float64]],
    ) -> None:
        for name in self.categories:
            if name not in counted:
                continue
            own = [place for place, each in enumerate(picture.maps) if each.category == name]
            if own:
                surest = max(own, key=lambda place: picture.maps[place].explanation.score)
                best = best_overlaps(made[surest], counted[name], len(self.thresholds))
                self.items.append((number, best.largest, best.any))
            else:  # not detected, so not found
                none = np.zeros(len(self.thresholds))
                self.items.append((number, none, none))

    def detected(self) -> Detected:
        """All that was added."""
        number, thresholds = len(self.step.iou), len(self.thresholds)
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        empty: dict[str, NDArray[Any]] = {
            **dict.fromkeys(("picture", "category", "threshold", "index"), whole),
            **{"score": real, "boxes": np.zeros((0, 4)), "peak": real},
            "hit": np.zeros((0, number), np.int64),
        }
        joined = {
            name: np.concatenate([start, *(part[place] for part in self.parts)])
            for place, (name, start) in enumerate(empty.items())
        }
        blank = np.zeros((0, thresholds))
        return Detected(
            thresholds=self.thresholds,
            **joined,
            item_picture=np.array([each[0] for each in self.items], dtype=np.int64),
            largest=np.vstack([blank, *(each[1] for each in self.items)]),
            any=np.vstack([blank, *(each[2] for each in self.items)]),
        )

"""Average precision, recall and box accuracy of boxes at each threshold, on sets of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.boxes.box_accuracy import (
    MAX_BOX_ACC_IOU,
    MAX_BOX_ACC_V2_IOUS,
    box_accuracy,
    max_box_acc,
    max_box_acc_v2,
)
from jobs.boxes.scored import Detected, Held
from jobs.scoring.average_precision import Curve, voc_11_point, voc_every_point
from jobs.scoring.matching import IGNORED

# Sets of pictures: all that were explained, those that thresholds are chosen on, and the others.
ALL, TUNE, SCORE = "all", "tune", "score"
FIGURES = ("ap_11", "ap", "recall")
TABLE = pa.schema(
    [
        pa.field(name, kind, nullable=name in (*FIGURES, "threshold", "category"))
        for name, kind in (
            *(("map", pa.string()), ("set", pa.string()), ("threshold", pa.float64())),
            *(("iou", pa.float64()), ("category", pa.string()), ("objects", pa.int64())),
            *(("detections", pa.int64()), *((name, pa.float64()) for name in FIGURES)),
        )
    ]
)


@dataclass(frozen=True)
class Figure:
    """What boxes are worth at one threshold and one IoU on one set.

    map: a kind of `Held`. category: None for the mean over those that the set has objects of.
    objects: that count. detections: that are not ignored. ap_11, ap: average precision, at 11
    recalls (VOC 2007) and at every one (VOC 2010); recall: of all detections; not a number where
    there are no objects.
    """

    map: str
    set: str
    threshold: float | None
    iou: float
    category: str | None
    objects: int
    detections: int
    ap_11: float
    ap: float
    recall: float


@dataclass(frozen=True)
class Chosen:
    """A threshold that was chosen on TUNE for its mean 11-point AP at one IoU (the lowest of
    equals), that there and on SCORE, with the recall, and the best of SCORE itself."""

    map: str
    iou: float
    threshold: float | None
    tune_ap_11: float
    ap_11: float
    ap: float
    recall: float
    best_threshold: float | None
    best_ap_11: float


@dataclass(frozen=True)
class Accuracy:
    """MaxBoxAcc and MaxBoxAccV2 of one kind of map on one set.

    items: pictures and categories in them. threshold: MaxBoxAcc's. each: of MaxBoxAccV2 the IoUs,
    the accuracy and the threshold at each. box_acc: BoxAcc on this set at the threshold that is
    MaxBoxAcc's on TUNE; None where there is no such set.
    """

    map: str
    set: str
    items: int
    max_box_acc: float
    threshold: float | None
    max_box_acc_v2: float
    each: tuple[tuple[float, float, float | None], ...]
    box_acc: float | None


def figures(
    held: Held, sets: Mapping[str, NDArray[np.bool_]], ious: Sequence[float]
) -> list[Figure]:
    """Of every kind, set, threshold, IoU and category, and the means.

    sets: which of the pictures, bool [pictures].
    """
    found = []
    for kind, detected in held.kinds.items():
        order = np.argsort(-detected.score, kind="stable")
        for name, own in sets.items():
            objects = held.positives[own].sum(axis=0)
            for place in range(len(detected.thresholds)):
                here = order[(detected.threshold[order] == place) & own[detected.picture[order]]]
                for column, iou in enumerate(ious):
                    rows = list(_by_category(held, kind, name, place, iou, column, here, objects))
                    found += [*rows, _mean(rows)]
    return found


def _by_category(
    held: Held,
    kind: str,
    name: str,
    place: int,
    iou: float,
    column: int,
    here: NDArray[np.int64],
    objects: NDArray[np.int64],
) -> Iterator[Figure]:
    detected = held.kinds[kind]
    here = here[detected.hit[here, column] != IGNORED]
    for number, category in enumerate(held.categories):
        rows = here[detected.category[here] == number]  # by falling score
        hit = detected.hit[rows, column] >= 0
        positives = int(objects[number])
        curve = Curve(detected.score[rows], hit, positives)
        eleven, every = voc_11_point(curve), voc_every_point(curve)
        yield Figure(
            *(kind, name, detected.thresholds[place], iou, category, positives, len(hit)),
            ap_11=eleven,
            ap=every,
            recall=float(hit.sum() / positives) if positives else float("nan"),
        )


def _mean(rows: Sequence[Figure]) -> Figure:
    first = rows[0]
    there = [row for row in rows if row.objects]
    ap_11, ap, recall = (
        float(np.mean([getattr(row, name) for row in there])) if there else float("nan")
        for name in FIGURES
    )
    return Figure(
        *(first.map, first.set, first.threshold, first.iou, None),
        objects=sum(row.objects for row in rows),
        detections=sum(row.detections for row in rows),
        ap_11=ap_11,
        ap=ap,
        recall=recall,
    )


def means(found: Sequence[Figure], kind: str, name: str, iou: float) -> list[Figure]:
    """The means over categories of one kind on one set at one IoU, by threshold."""
    return [
        each
        for each in found
        if (each.map, each.set, each.iou, each.category) == (kind, name, iou, None)
    ]


def chosen_thresholds(
    found: Sequence[Figure], kinds: Iterable[str], ious: Sequence[float]
) -> list[Chosen]:
    """For every kind and IoU; none where TUNE or SCORE have no objects."""
    rows = []
    for kind in kinds:
        for iou in ious:
            tune, score = (means(found, kind, name, iou) for name in (TUNE, SCORE))
            if not (tune and score and tune[0].objects and score[0].objects):
                continue
            place = int(np.argmax([each.ap_11 for each in tune]))
            best = max(score, key=lambda each: each.ap_11)
            rows.append(
                Chosen(
                    map=kind,
                    iou=iou,
                    threshold=tune[place].threshold,
                    tune_ap_11=tune[place].ap_11,
                    ap_11=score[place].ap_11,
                    ap=score[place].ap,
                    recall=score[place].recall,
                    best_threshold=best.threshold,
                    best_ap_11=best.ap_11,
                )
            )
    return rows


def accuracies(held: Held, sets: Mapping[str, NDArray[np.bool_]]) -> list[Accuracy]:
    """Of every kind and set that has items."""
    rows = []
    for kind, detected in held.kinds.items():
        tuned = _tuned(detected, sets.get(TUNE))
        for name, own in sets.items():
            items = own[detected.item_picture]
            if not items.any():
                continue
            largest = detected.largest[items]
            first, place = max_box_acc(largest)
            second, each = max_box_acc_v2(detected.any[items])
            at_tuned = None if tuned is None else box_accuracy(largest, MAX_BOX_ACC_IOU)[tuned]
            rows.append(
                Accuracy(
                    map=kind,
                    set=name,
                    items=int(items.sum()),
                    max_box_acc=first,
                    threshold=detected.thresholds[place],
                    max_box_acc_v2=second,
                    each=tuple(
                        (iou, accuracy, detected.thresholds[own_place])
                        for iou, (accuracy, own_place) in zip(
                            MAX_BOX_ACC_V2_IOUS, each, strict=True
                        )
                    ),
                    box_acc=None if at_tuned is None else float(at_tuned),
                )
            )
    return rows


def _tuned(detected: Detected, tune: NDArray[np.bool_] | None) -> int | None:
    if tune is None or not tune[detected.item_picture].any():
        return None
    return max_box_acc(detected.largest[tune[detected.item_picture]])[1]

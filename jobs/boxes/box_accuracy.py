"""MaxBoxAcc and MaxBoxAccV2 of maps that were made into boxes.

Choe, Oh, Lee, Chun, Akata and Shim, "Evaluating Weakly Supervised Object Localization Methods
Right", CVPR 2020; the second in the journal's version (TPAMI 2022). BoxAcc at a threshold is the
share of pictures with a box that overlaps any true box of the class by at least so much. MaxBoxAcc
takes the box of the largest component, an IoU of 0.5, and the best threshold; MaxBoxAccV2 the best
of the boxes of all components, and the mean over three IoUs of the accuracy at each one's own best
threshold. Those thresholds are the best of the very pictures that are scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.boxes.map_boxes import MapBoxes
from jobs.scoring.matching import overlaps

MAX_BOX_ACC_IOU = 0.5
MAX_BOX_ACC_V2_IOUS = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class BestOverlaps:
    """How well one map's boxes meet any of the true boxes, at each threshold: [T], 0 ... 1, 0
    where there is no box. largest: that of the largest component. any: the best of all."""

    largest: NDArray[np.float64]
    any: NDArray[np.float64]


def best_overlaps(boxes: MapBoxes, truth: NDArray[np.float64], thresholds: int) -> BestOverlaps:
    """Of all a map's components with the true boxes [N, 4] of its category, at least one."""
    best = overlaps(boxes.boxes, truth).max(axis=1) if len(boxes) else np.zeros(0)
    found = BestOverlaps(np.zeros(thresholds), np.zeros(thresholds))
    found.largest[boxes.threshold[boxes.largest]] = best[boxes.largest]
    np.maximum.at(found.any, boxes.threshold, best)
    return found


def box_accuracy(best: NDArray[np.float64], iou: float) -> NDArray[np.float64]:
    """BoxAcc at each threshold, [T], of best overlaps [N, T]; not a number of no maps."""
    if not len(best):
        return np.full(best.shape[1], np.nan)
    share: NDArray[np.float64] = (best >= iou).mean(axis=0)
    return share


def max_box_acc(largest: NDArray[np.float64]) -> tuple[float, int]:
    """MaxBoxAcc of best overlaps [N, T] of the largest components, and the place of its threshold
    (the first of equals)."""
    return _highest(box_accuracy(largest, MAX_BOX_ACC_IOU))


def max_box_acc_v2(any_component: NDArray[np.float64]) -> tuple[float, list[tuple[float, int]]]:
    """MaxBoxAccV2 of best overlaps [N, T] of all components, and for each of MAX_BOX_ACC_V2_IOUS
    the accuracy and the place of its threshold."""
    each = [_highest(box_accuracy(any_component, iou)) for iou in MAX_BOX_ACC_V2_IOUS]
    return float(np.mean([accuracy for accuracy, _ in each])), each


def _highest(accuracy: NDArray[np.float64]) -> tuple[float, int]:
    place = int(accuracy.argmax())
    return float(accuracy[place]), place

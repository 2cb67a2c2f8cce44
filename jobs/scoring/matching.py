"""Which detection is of which true object: one to one, the surest first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jobs.truth.objects import Objects

# What a detection is that is of no object, and one that counts neither way.
FALSE, IGNORED = -1, -2


def overlaps(
    boxes: NDArray[np.float64], others: NDArray[np.float64], pixel: float = 0.0
) -> NDArray[np.float64]:
    """Intersection over union of boxes [N, 4] with others [M, 4]: [N, M], 0 ... 1; 0 of two without
    an area.

    pixel: what a side is longer than the difference of its edges: 0 for edges between pixels, 1
    where they are the first and the last pixel, as VOC's own program counts.
    """
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner + pixel
    shared = np.clip(sides, 0, None).prod(axis=2)
    first, second = ((each[:, 2:] - each[:, :2] + pixel).prod(axis=1) for each in (boxes, others))
    union = first[:, None] + second[None] - shared
    found: NDArray[np.float64] = np.divide(
        shared, union, out=np.zeros_like(shared), where=union > 0
    )
    return found


def matched(
    boxes: NDArray[np.float64],
    categories: Sequence[str],
    scores: NDArray[np.float64],
    objects: Objects,
    least_overlap: float = 0.5,
    pixel: float = 0.0,
) -> NDArray[np.int64]:
    """For each of a picture's detections the place of its object, FALSE or IGNORED: [N].

    As PASCAL VOC's program does: the surest first (of equals the first), each goes to the object of
    its category that it overlaps most; it is FALSE if that is less than `least_overlap`, or if a
    surer one took that object; it is IGNORED if that object is difficult or a crowd.
    boxes: [N, 4]. categories: N names. scores: [N].
    """
    found = np.full(len(boxes), FALSE, dtype=np.int64)
    taken = np.zeros(len(objects), dtype=np.bool_)
    shares = overlaps(boxes, objects.boxes, pixel)
    names = np.array(objects.categories, dtype=object)
    for place in np.argsort(-scores, kind="stable"):
        own = np.flatnonzero(names == categories[place])
        if not len(own):
            continue
        best = int(own[shares[place, own].argmax()])
        if shares[place, best] < least_overlap:
            continue
        if objects.difficult[best] or objects.crowd[best]:
            found[place] = IGNORED
        elif not taken[best]:
            taken[best] = True
            found[place] = best
    return found

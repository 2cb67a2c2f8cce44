"""The golden samples of two archives side by side: which box became which, and its map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archives.golden import read_golden

SAME_OBJECT = 0.5  # IoU of boxes of one label, at least


def golden_differences(
    before: Path, after: Path, categories: tuple[Sequence[str], Sequence[str]]
) -> dict[str, Any] | None:
    """The two unpacked archives' detections, paired by label and overlap, the best pairs first.

    categories: theirs, by label. None where either has no golden sample.
    """
    if not all((each / "golden").is_dir() for each in (before, after)):
        return None
    old, new = read_golden(before), read_golden(after)
    rows = _paired(old.expected, new.expected)
    for row in rows:
        for side, names in zip(("before", "after"), categories, strict=True):
            if row[side]:
                label = row[side]["label"]
                row[side]["category"] = dict(enumerate(names)).get(label, f"label {label}")
    return {
        "same_picture": old.picture == new.picture,
        "same_request": dict(old.request) == dict(new.request),
        "detections": rows,
    }


def _paired(old: Any, new: Any) -> list[dict[str, Any]]:
    overlap = np.array([[_iou(one, other) for other in new.boxes] for one in old.boxes])
    overlap = overlap.reshape(len(old.boxes), len(new.boxes))
    overlap[old.labels[:, None] != new.labels[None, :]] = 0
    rows = []
    left, right = set(range(len(old.boxes))), set(range(len(new.boxes)))
    for place in np.argsort(-overlap, axis=None, kind="stable"):
        i, j = np.unravel_index(place, overlap.shape)
        if overlap[i, j] >= SAME_OBJECT and i in left and j in right:
            left.discard(int(i))
            right.discard(int(j))
            rows.append(
                {
                    "before": _detection(old, int(i)),
                    "after": _detection(new, int(j)),
                    "iou": round(float(overlap[i, j]), 4),
                    "heatmap_similarity": _similarity(old.heatmaps[i], new.heatmaps[j]),
                }
            )
    rows += [{"before": _detection(old, i), "after": None} for i in sorted(left)]
    rows += [{"before": None, "after": _detection(new, j)} for j in sorted(right)]
    return rows


def _detection(answer: Any, place: int) -> dict[str, Any]:
    return {
        "label": int(answer.labels[place]),
        "score": round(float(answer.scores[place]), 4),
        "box": [round(float(side), 1) for side in answer.boxes[place]],
    }


def _iou(one: NDArray[Any], other: NDArray[Any]) -> float:
    corner = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = float(np.prod(np.maximum(corner, 0)))
    whole = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - both
    return min(both / whole, 1.0) if whole > 0 else 0.0


def _similarity(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """The cosine of two maps, 1 for the same up to a factor; None for maps of other sizes."""
    if one.shape != other.shape:
        return None
    one, other = one.astype(np.float64), other.astype(np.float64)  # float32 may overflow
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    if not lengths:
        return 1.0 if np.array_equal(one, other) else 0.0
    return round(float((one * other).sum()) / lengths, 4)

"""Outlines and run lengths to masks, as COCO's own program draws them.

faster-coco-eval does it, whose C++ checks run lengths; what it does not check is checked here,
since annotations may be anybody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 1e15
LONGEST_OUTLINE = 2_000_000  # pixels along all outlines of one object


def polygon_mask(polygons: Sequence[Any], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels inside any of the polygons: bool [H, W].

    polygons: each x, y, x, y, ... in pixels, at least three points, of which none lies further from
    the picture than it is long. Raises ValueError, "expected ...".
    """
    from faster_coco_eval import mask

    _check_size(height, width)
    outlines, way = [], 0.0
    for each in polygons:
        if not isinstance(each, (list, tuple)) or len(each) < 6 or len(each) % 2:
            raise ValueError("expected polygons x, y, x, y, ... of at least three points")
        points = _numbers(each).reshape(-1, 2)
        far = np.abs(points - np.array([width, height]) / 2) > 1.5 * max(width, height)
        if far.any():
            raise ValueError(f"expected points in a picture of {width} x {height}")
        way += float(np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum())
        outlines.append(points.ravel().tolist())
    if way > LONGEST_OUTLINE:
        raise ValueError(f"expected outlines of at most {LONGEST_OUTLINE:,} pixels in all")
    if not outlines:
        raise ValueError("expected at least one polygon")
    merged = mask.merge(mask.frPyObjects(outlines, height, width))
    return np.asarray(mask.decode(merged)).astype(np.bool_)


def run_length_mask(counts: Any, size: Any, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels of COCO's run lengths: bool [H, W]. counts: a list, or COCO's compressed text;
    size: [H, W] as the annotation has it, which has to be the picture's. Raises ValueError."""
    from faster_coco_eval import mask

    _check_size(height, width)
    if size != [height, width]:
        raise ValueError(f"expected run lengths of size [{height}, {width}], got {str(size)[:40]}")
    if isinstance(counts, str):
        # One character of COCO's code is at least a part of a run of one pixel.
        if not counts.isascii() or len(counts) > 8 * height * width + 8:
            raise ValueError("expected COCO's compressed run lengths")
        coded: Any = {"size": [height, width], "counts": counts.encode()}
    elif isinstance(counts, list):
        runs = _numbers(counts)
        if (runs < 0).any() or (runs % 1).any() or runs.sum() != height * width:
            raise ValueError(f"expected whole run lengths of {height * width} pixels in all")
        plain = {"size": [height, width], "counts": [int(each) for each in runs]}
        coded = mask.frPyObjects(plain, height, width)
    else:
        raise ValueError("expected run lengths as a list or as COCO's compressed text")
    try:
        return np.asarray(mask.decode(coded)).astype(np.bool_)
    except RuntimeError as error:  # what its C++ raises besides ValueError
        raise ValueError(str(error)) from error


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a number, and neither infinite nor beyond all measure."""
    return type(value) in (int, float) and abs(value) < LARGEST


def _check_size(height: int, width: int) -> None:
    from handlers.images import MAX_PIXELS  # with torch, which boxes alone do not need

    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise ValueError(
            f"expected a picture of 1 to {MAX_PIXELS:,} pixels, got {width} x {height}"
        )


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    if not all(is_number(each) for each in values):
        raise ValueError("expected numbers")
    return np.array(values, dtype=np.float64)

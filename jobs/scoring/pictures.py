"""A picture's detections beside its true objects: what every score is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.truth.objects import Objects


@dataclass(frozen=True)
class DetectedPicture:
    """What was detected in one picture, and what is there.

    key: the picture's, printable. boxes: float64 [N, 4], x1, y1, x2, y2 in pixels. categories: N
    names. scores: float64 [N]. objects: the true ones.
    """

    key: str
    boxes: NDArray[np.float64]
    categories: tuple[str, ...]
    scores: NDArray[np.float64]
    objects: Objects

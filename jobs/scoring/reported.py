"""All that a detector reported in a picture, kept for scores that are counted later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from handlers.schema import Detections


@dataclass(frozen=True)
class Reported:
    """boxes: float64 [N, 4], x1, y1, x2, y2 in pixels. categories: N names. scores: float64 [N],
    0 ... 1, best first."""

    boxes: NDArray[np.float64]
    categories: tuple[str, ...]
    scores: NDArray[np.float64]

    @classmethod
    def of(cls, found: Detections, categories: Sequence[str]) -> Reported:
        """Of a detector's answer; categories: the detector's, by label."""
        return cls(
            found.boxes.double().numpy(),
            tuple(categories[label] for label in found.labels.tolist()),
            found.scores.double().numpy(),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "boxes": self.boxes.tolist(),
            "categories": list(self.categories),
            "scores": self.scores.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reported:
        """The inverse of `to_dict`."""
        return cls(
            np.array(values["boxes"], dtype=np.float64).reshape(-1, 4),
            tuple(values["categories"]),
            np.array(values["scores"], dtype=np.float64),
        )

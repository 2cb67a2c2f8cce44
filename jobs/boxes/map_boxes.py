"""From a map to boxes: blurred, hidden far from its peak, thresholded, cut into components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from handlers.smoothing import gaussian_blur
from jobs.boxes.components import Components, components
from jobs.boxes.options import BoxStep


@dataclass(frozen=True)
class MapBoxes:
    """The boxes of one map at each threshold.

    threshold: int64 [K], ascending places among the thresholds; of one threshold the component
    with the highest peak comes first. boxes: float64 [K, 4], x1, y1, x2, y2, the edges of the
    map's pixels. peak: float64 [K], the largest value inside over the map's, 0 ... 1.
    largest: bool [K], the one with the most pixels of its threshold (of equals that with the higher
    peak).
    """

    threshold: NDArray[np.int64]
    boxes: NDArray[np.float64]
    peak: NDArray[np.float64]
    largest: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.threshold)

    def of(self, chosen: NDArray[np.bool_]) -> MapBoxes:
        """Some of them."""
        return MapBoxes(
            self.threshold[chosen], self.boxes[chosen], self.peak[chosen], self.largest[chosen]
        )


def boxes_of_map(heat: NDArray[np.floating], step: BoxStep) -> MapBoxes:
    """Every component's box at every threshold of `step`, whatever `step.components` says.

    heat: [H, W], non-negative, on the picture's pixels. Each threshold is a share of the maximum
    of what is left after blur and occlusion (which keeps it); a map of zeros has no boxes.
    """
    heat = occluded(smoothed(heat, step.smooth), step.occlusion_radius)
    largest = float(heat.max())
    if largest <= 0:
        none = np.zeros(0, dtype=np.int64)
        return MapBoxes(none, np.zeros((0, 4)), np.zeros(0), none.astype(np.bool_))
    levels = [share * largest for share in step.thresholds]
    found = components(heat, levels, step.connectivity)
    order = np.lexsort((-found.peak, found.threshold))
    return MapBoxes(
        threshold=found.threshold[order],
        boxes=found.boxes[order],
        peak=found.peak[order] / largest,
        largest=_largest(found, order),
    )


def _largest(found: Components, order: NDArray[np.int64]) -> NDArray[np.bool_]:
    by_area = np.lexsort((-found.area[order], found.threshold[order]))
    threshold = found.threshold[order][by_area]
    chosen = np.zeros(len(order), dtype=np.bool_)
    chosen[by_area[np.flatnonzero(np.diff(threshold, prepend=-1))]] = True
    return chosen


def smoothed(heat: NDArray[np.floating], share: float) -> NDArray[np.floating]:
    """The map blurred by a Gaussian of so much of its longer side; 0 leaves it as it is."""
    if share <= 0:
        return heat
    values = torch.from_numpy(np.ascontiguousarray(heat, dtype=np.float32))[None]
    blurred: NDArray[np.float32] = gaussian_blur(values, share * max(heat.shape))[0].numpy()
    return blurred


def occluded(heat: NDArray[np.floating], radius: float | None) -> NDArray[np.floating]:
    """The map, zero where it is farther from its peak's middle (the first of equals) than so much
    of its diagonal.

    The study of the seeds asks for "a better radius for occlusion of a heatmap to obtain better
    wrapping of bounding box even with lower threshold values". Read as this: a low threshold lets
    faint heat far away widen the box, and what lies beyond the radius shall not.
    """
    if radius is None:
        return heat
    height, width = heat.shape
    row, column = divmod(int(heat.argmax()), width)
    down, across = np.arange(height)[:, None] - row, np.arange(width) - column
    near = down**2 + across**2 <= (radius * np.hypot(height, width)) ** 2
    return np.where(near, heat, 0)


def chosen(boxes: MapBoxes, kind: str) -> MapBoxes:
    """Those that `BoxStep.components` names."""
    return boxes if kind == "all" else boxes.of(boxes.largest)

"""What is done to a finished map by the box that it explains: blurred, weighed by the box's middle,
handed out to several boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from handlers.maps import Heat
from handlers.smoothing import bell, gaussian_blur

# x1, y1, x2, y2 in pixels of the picture.
Corners = tuple[float, float, float, float]


def smoothed(heat: Heat, boxes: Sequence[Corners], share: float) -> Heat:
    """Blurred by a Gaussian of that share of its boxes' mean side, at most of the map's own."""
    sides = [math.sqrt(max(0.0, (x2 - x1) * (y2 - y1))) for x1, y1, x2, y2 in boxes]
    sigma, geometry = share * sum(sides) / len(sides), heat.geometry
    height, width = heat.heatmap.shape
    (left, top), (right, bottom) = (
        geometry.cell_of(each, each, height, width) for each in (0.0, sigma)
    )
    down, across = min(height, abs(bottom - top)), min(width, abs(right - left))
    return replace(heat, heatmap=gaussian_blur(heat.heatmap[None], down, across)[0])


def centered(heat: Heat, boxes: Sequence[Corners], share: float) -> Heat:
    """Times a Gaussian at its box's middle, whose standard deviations are that share of the box's
    sides, at least half a cell of the map, which else might miss it; of several boxes the largest
    of theirs. Zhu et al. 2020 (AutoAssign) call it a center prior."""
    height, width = heat.heatmap.shape
    priors = []
    for x1, y1, x2, y2 in boxes:
        left, top = heat.geometry.cell_of(x1, y1, height, width)
        right, bottom = heat.geometry.cell_of(x2, y2, height, width)
        priors.append(
            torch.outer(_along(top, bottom, height, share), _along(left, right, width, share))
        )
    return replace(heat, heatmap=heat.heatmap * torch.stack(priors).amax(0))


def _along(first: float, last: float, cells: int, share: float) -> Tensor:
    """At the middles of so many cells, for a side from `first` to `last`, in cells."""
    middles = torch.arange(cells) + 0.5
    return bell(middles, (first + last) / 2, max(0.5, share * abs(last - first))).float()


def handed_out(heats: Sequence[Heat], number: int) -> list[Heat]:
    """One map of several boxes together for each of so many; as it is if there are several."""
    if len(heats) > 1:
        return list(heats)
    return [replace(heat, place=place) for heat in heats for place in range(number)]

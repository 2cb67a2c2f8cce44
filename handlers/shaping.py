"""What is done to a finished map by the box that it explains: blurred, weighed by the box's middle,
handed out to several boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from handlers.cam.gradient import WINDOW_BUDGET
from handlers.maps import Heat
from handlers.smoothing import bell, gaussian_blurs

# x1, y1, x2, y2 in pixels of the picture.
Corners = tuple[float, float, float, float]


def smoothed(heats: Sequence[Heat], boxes: Sequence[Sequence[Corners]], share: float) -> list[Heat]:
    """Each blurred by a Gaussian of that share of its own boxes' mean side, at most of the map's
    own. Maps of one size are blurred together."""
    found = list(heats)
    sigmas = [_sigmas(*each, share) for each in zip(heats, boxes, strict=True)]
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, heat in enumerate(heats):
        sizes.setdefault(tuple(heat.heatmap.shape), []).append(place)
    for (height, width), same in sizes.items():
        # Beside a map lie the weights of its Gaussians, and what they make of it.
        count = max(1, WINDOW_BUDGET // (2 * (height**2 + width**2) + 3 * height * width))
        for group in (same[first : first + count] for first in range(0, len(same), count)):
            maps = torch.stack([found[place].heatmap for place in group])
            down, across = maps.new_tensor([sigmas[place] for place in group]).T
            for place, own in zip(group, gaussian_blurs(maps, down, across), strict=True):
                # A copy: a view would keep all of them in memory as long as one is kept.
                found[place] = replace(found[place], heatmap=own.clone())
    return found


def _sigmas(heat: Heat, boxes: Sequence[Corners], share: float) -> tuple[float, float]:
    """Down and across, in cells."""
    sides = [math.sqrt(max(0.0, (x2 - x1) * (y2 - y1))) for x1, y1, x2, y2 in boxes]
    sigma, (height, width) = share * sum(sides) / len(sides), heat.heatmap.shape
    (left, top), (right, bottom) = (
        heat.geometry.cell_of(each, each, height, width) for each in (0.0, sigma)
    )
    return min(height, abs(bottom - top)), min(width, abs(right - left))


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


def apart(boxes: Sequence[Corners], share: float) -> list[list[int]]:
    """Places of boxes in groups, in each of which no two center priors of that share overlap, up to
    two standard deviations from their middles: each box in the first group that has room for it.
    (Boxes smaller than a map's cells have wider priors, which neighbours then show in.)"""
    groups: list[list[int]] = []
    seen = [_reach(each, share) for each in boxes]
    for place, (x1, y1, x2, y2) in enumerate(seen):
        for group in groups:
            others = (seen[other] for other in group)
            if all(x2 <= o[0] or o[2] <= x1 or y2 <= o[1] or o[3] <= y1 for o in others):
                group.append(place)
                break
        else:
            groups.append([place])
    return groups


def _reach(box: Corners, share: float) -> Corners:
    x1, y1, x2, y2 = box
    across, down = 2 * share * (x2 - x1), 2 * share * (y2 - y1)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - across, y - down, x + across, y + down


def handed_out(heats: Sequence[Heat], groups: Sequence[Sequence[int]]) -> list[Heat]:
    """The map of each group for each of its boxes, by their places; one of all for all."""
    if len(heats) == 1:
        groups = [[place for group in groups for place in group]]
    pairs = zip(heats, groups, strict=True)
    every = [replace(heat, place=place) for heat, group in pairs for place in group]
    return sorted(every, key=lambda heat: heat.place)

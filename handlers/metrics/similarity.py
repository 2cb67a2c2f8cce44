"""How alike maps are, pair by pair: for what should and what should not change them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """The correlation of each of two maps [N, H, W]: [N], -1 ... 1. A map that is the same
    everywhere is like no other (0); of two of these there is nothing to tell (not a number)."""
    first, second = (each.flatten(1).double() for each in (one, other))
    varied = [each.amax(1) > each.amin(1) for each in (first, second)]
    first, second = (each - each.mean(1, keepdim=True) for each in (first, second))
    spread = (first.square().sum(1) * second.square().sum(1)).sqrt()
    found = torch.where(varied[0] & varied[1], (first * second).sum(1) / spread, 0.0)
    return found.clamp(-1, 1).masked_fill(~(varied[0] | varied[1]), math.nan)


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """The rank correlation of each of two maps [N, H, W], as Adebayo et al. 2018 compare maps of
    randomised networks: [N], likewise. Equal values share the mean of their ranks."""
    return pearson(*(_ranks(each.flatten(1))[:, None] for each in (one, other)))


def _ranks(values: Tensor) -> Tensor:
    """Each value's place among those of its row [N, P], from 0, in halves: float64 [N, P]."""
    ordered = values.sort(1).values
    below = torch.searchsorted(ordered, values, right=False)
    up_to = torch.searchsorted(ordered, values, right=True)
    return (below + up_to - 1).double() / 2

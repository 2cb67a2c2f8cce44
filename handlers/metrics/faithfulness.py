"""Deletion and insertion: does the detection go and come with the pixels that a map names?

Petsiuk et al. 2018 (RISE) for classifiers, 2021 (D-RISE) for detectors. Pixels are taken away
(deletion, to the picture's mean colour) or brought back (insertion, from a blurred picture) in the
map's order, and the area under what is left of the detection is the figure: small for deletion,
large for insertion.

The papers leave open, and here it is: the order is that of the map on the picture's own pixels,
and of equal values the first row by row; every step moves the same number of pixels (but for
rounding, and unless `growth` says otherwise); the curve has a point before the first and one after
the last step; the area is that of trapezoids over shares 0 ... 1. The raw area follows the score
that the detection starts with, so that a weak detection has a small deletion whatever the map:
`normalised` divides it away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from handlers.smoothing import gaussian_blur

# Points of a curve whose pictures are in memory together.
AT_A_TIME = 16

# Pictures, uint8 [B, 3, H, W]: a score of each [B], or several [B, K]; at least 0.
Scoring = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FaithfulnessOptions:
    """How pixels go and come.

    steps: points of a curve, the whole picture and the empty one included; at least 2.
    blur: the standard deviation of the Gaussian that insertion begins with, as a share of the
        picture's longer side; its kernel ends at three of them.
    growth: 1 moves equal numbers of pixels at each step; 2 moves a share of t^2 by the share t of
        the steps, which puts more points where a small object goes. The area is the same integral.
    """

    steps: int = 41
    blur: float = 0.05
    growth: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"steps: got {self.steps}; expected at least 2")
        if not self.blur > 0:
            raise ValueError(f"blur: got {self.blur}; expected a share above 0")
        if not self.growth >= 1:
            raise ValueError(f"growth: got {self.growth}; expected at least 1")


@dataclass(frozen=True)
class Curve:
    """What is left of a detection, step by step.

    shares: [S], of the pixels that were moved, 0 ... 1. scores: [S], or [S, K] of several scores.
    whole: [], or [K], the scores of the picture as it is.
    """

    shares: Tensor
    scores: Tensor
    whole: Tensor

    @property
    def area(self) -> Tensor:
        """The area under the curve: [], or [K]."""
        return torch.trapezoid(self.scores, self.shares, dim=0)

    @property
    def normalised(self) -> Tensor:
        """`area` over the score of the whole picture; not a number where that is zero."""
        return self.area / self.whole


def deletion(score: Scoring, picture: Tensor, heat: Tensor, options: FaithfulnessOptions) -> Curve:
    """The scores while the hottest pixels go first, to the picture's mean colour.

    picture: uint8 [3, H, W]. heat: [H, W].
    """
    mean = picture.double().mean((1, 2)).round().to(torch.uint8)
    gone = mean[:, None, None].expand_as(picture)
    shares, scores = _scores(score, picture, gone, heat, options)
    return Curve(shares, scores, scores[0])


def insertion(score: Scoring, picture: Tensor, heat: Tensor, options: FaithfulnessOptions) -> Curve:
    """The scores while the hottest pixels come back first, into the blurred picture.

    picture: uint8 [3, H, W]. heat: [H, W].
    """
    shares, scores = _scores(score, blurred(picture, options), picture, heat, options)
    return Curve(shares, scores, scores[-1])


def blurred(picture: Tensor, options: FaithfulnessOptions) -> Tensor:
    """What insertion begins with: uint8 [3, H, W]."""
    sigma = options.blur * max(picture.shape[1:])
    return gaussian_blur(picture.float(), sigma).round().clamp(0, 255).to(torch.uint8)


def pixel_ranks(heat: Tensor) -> Tensor:
    """For each pixel of a map [H, W] its place in the order, 0 for the hottest: int64 [H, W]. Of
    equal values the first, row by row, comes first."""
    order = torch.argsort(heat.flatten(), descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device)
    return ranks.reshape(heat.shape)


def _scores(
    score: Scoring, before: Tensor, after: Tensor, heat: Tensor, options: FaithfulnessOptions
) -> tuple[Tensor, Tensor]:
    """The shares and the scores while pixels of `before` become those of `after`."""
    if heat.shape != before.shape[1:]:
        raise ValueError(
            f"heat: got {list(heat.shape)}; expected {list(before.shape[1:])}, the picture's pixels"
        )
    shares = torch.linspace(0, 1, options.steps, dtype=torch.float64) ** options.growth
    moved = (shares * heat.numel()).round().long()
    ranks = pixel_ranks(heat)
    scores = [
        score(torch.where((ranks < few[:, None, None])[:, None], after, before)).double()
        for few in moved.split(AT_A_TIME)
    ]
    return shares, torch.cat(scores)


def similarities(
    box: Tensor, label: int, probabilities: Tensor, boxes: Tensor, theirs: Tensor
) -> Tensor:
    """What is left of a detection among those found: [2], 0 ... 1 each.

    box: [4]. probabilities: [K], of its classes. boxes: [N, 4]; theirs: [N, K], what was found. The
    first is D-RISE's similarity max_j IoU(box, box_j) cos(P, P_j): 1 for the very detection,
    however weak (its objectness is within P where a detector has one). The second has what P_j says
    of the detection's own class in the place of the cosine, so that it also falls as the detector
    grows less sure; it begins at the detection's score.
    """
    if not len(boxes):
        return probabilities.new_zeros(2)
    overlaps = box_iou(box[None], boxes)[0]
    cosines = F.cosine_similarity(probabilities[None], theirs, dim=1).clamp(min=0)
    return torch.stack([(overlaps * cosines).max(), (overlaps * theirs[:, label]).max()])

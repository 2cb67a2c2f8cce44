"""How torchvision's detectors turn scored candidates into detections; the same end for all."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from handlers.detectors.base import Candidates, Entries, Inputs, Kept, Limits


def strongest(scores: Tensor, threshold: float, most: int) -> Tensor:
    """Places of the scores above `threshold`, the best `most` of them, best first.

    scores: [n]. The same operators as in torchvision, so that ties fall the same way.
    """
    places = torch.where(scores > threshold)[0]
    _, order = scores[places].topk(min(most, len(places)))
    return places[order]


def suppress(
    before: Entries, limits: Limits, candidates: Candidates, inputs: Inputs, picture: int
) -> Kept:
    """Non-maximum suppression within each label, the limit, and boxes in picture pixels."""
    survivors = batched_nms(before.boxes, before.scores, before.labels, limits.iou)
    entries = before[survivors[: limits.detections]]
    return Kept(
        boxes=inputs.on_picture(entries.boxes, picture),
        entries=entries,
        level=candidates.level[entries.candidate],
        before=before,
        survivors=survivors,
    )

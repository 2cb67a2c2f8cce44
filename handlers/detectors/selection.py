"""How scored candidates become detections: the same end for all that suppress by overlap."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from handlers.detectors.base import Candidates, Entries, Features, Inputs, Kept, Limits, Raw


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


class SuppressingDetector(ABC):
    """`select` for detectors whose entries are suppressed within each label."""

    def select(
        self, features: Features, candidates: list[Candidates], raw: list[Raw]
    ) -> list[Kept]:
        return [
            suppress(self.entries(each, own), self.limits(), own, features.inputs, picture)
            for picture, (each, own) in enumerate(zip(raw, candidates, strict=True))
        ]

    @abstractmethod
    def entries(self, raw: Raw, candidates: Candidates) -> Entries:
        """What enters suppression, in the stock model's order."""

    @abstractmethod
    def limits(self) -> Limits:
        """What `select` drops candidates by."""

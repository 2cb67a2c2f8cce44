"""What is left of a picture's boxes when the picture is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import torch
from torch import Tensor

from handlers.explainer import Explainer
from handlers.metrics.faithfulness import Scoring, similarities
from handlers.schema import Explanation
from handlers.tap import undisturbed


def scorings(
    explainer: Explainer, picture: Tensor, boxes: Sequence[Explanation], batch_size: int
) -> list[Scoring]:
    """For each box of a picture (uint8 [3, H, W]) what is left of it in changed pictures: [B, 2],
    as `similarities`."""
    detections = _Remembered(explainer, batch_size)
    ((kept, probabilities),) = detections.of(picture[None])

    def scoring(place: int, label: int) -> Scoring:
        box = kept[place]

        def score(pictures: Tensor) -> Tensor:
            return torch.stack(
                [
                    similarities(box, label, probabilities[place], theirs, classes)
                    for theirs, classes in detections.of(pictures)
                ]
            )

        return score

    return [scoring(each.index, each.label) for each in boxes]


# The reported boxes [N, 4] of a picture and their class probabilities [N, K], the background's
# zero, as for D-RISE.
BoxesAndClasses = tuple[Tensor, Tensor]


def reported(
    explainer: Explainer, pictures: Sequence[Tensor], batch_size: int
) -> Iterator[BoxesAndClasses]:
    """What is reported on each of pictures (uint8 [3, H, W]) of one size, in their order."""
    detector = explainer.detector
    with undisturbed(detector.model):
        inputs = [explainer.prepare(each) for each in pictures]
        for _, found in explainer.found(inputs, batch_size):
            scores = found.raw.scores[found.kept.entries.candidate].clone()
            scores[:, : detector.first_label] = 0
            yield found.kept.boxes.cpu(), scores.cpu()


@dataclass
class _Remembered:
    """Detections on pictures, each looked at once: every curve begins and ends with the same."""

    explainer: Explainer
    batch_size: int
    known: dict[bytes, BoxesAndClasses] = field(default_factory=dict)

    def of(self, pictures: Tensor) -> list[BoxesAndClasses]:
        """Of each picture (uint8 [B, 3, H, W])."""
        names = [sha256(each.numpy().tobytes()).digest() for each in pictures]
        every = dict(zip(names, pictures, strict=True))
        new = {name: each for name, each in every.items() if name not in self.known}
        found = reported(self.explainer, list(new.values()), self.batch_size)
        self.known.update(zip(new, found, strict=True))
        return [self.known[name] for name in names]

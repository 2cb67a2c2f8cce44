"""What is left of a picture's boxes when the picture is changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
_Detections = tuple[Tensor, Tensor]


@dataclass
class _Remembered:
    """Detections on pictures, each looked at once: every curve begins and ends with the same."""

    explainer: Explainer
    batch_size: int
    known: dict[bytes, _Detections] = field(default_factory=dict)

    def of(self, pictures: Tensor) -> list[_Detections]:
        """Of each picture (uint8 [B, 3, H, W])."""
        names = [sha256(each.numpy().tobytes()).digest() for each in pictures]
        every = dict(zip(names, pictures, strict=True))
        new = {name: each for name, each in every.items() if name not in self.known}
        self.known.update(zip(new, self._found(list(new.values())), strict=True))
        return [self.known[name] for name in names]

    def _found(self, pictures: Sequence[Tensor]) -> Iterable[_Detections]:
        detector = self.explainer.detector
        with undisturbed(detector.model):
            # They are of one size, so come in their order.
            for _, found in self.explainer.found(
                [self.explainer.prepare(each) for each in pictures], self.batch_size
            ):
                scores = found.raw.scores[found.kept.entries.candidate].clone()
                scores[:, : detector.first_label] = 0
                yield found.kept.boxes.cpu(), scores.cpu()

"""Which boxes a request is about, and what became of each: reported, or why not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from handlers.detectors.base import Entries, Found, Limits

REPORTED = "reported"


def shown_score(score: float) -> str:
    """A score as text: cut, not rounded, so that nothing that was dropped looks as if it had
    reached the threshold."""
    if 0 < score < 0.001:
        return "<0.001"
    digits = 2 if score >= 0.1 else 3
    return f"{math.floor(score * 10**digits) / 10**digits:.{digits}f}"


@dataclass(frozen=True)
class Outcome:
    """text: "reported", or why a candidate was not. suppressed_by: the box that did it, its place
    among the picture's detections; None where there is none."""

    text: str = REPORTED
    suppressed_by: int | None = None


@dataclass(frozen=True)
class Chosen:
    """What of one picture is explained.

    entries: candidates and labels, boxes in pixels of the network input. boxes: [N, 4] in picture
    pixels. index: each one's place, as an Explanation gives it.
    """

    entries: Entries
    boxes: Tensor
    index: list[int]
    outcomes: list[Outcome]

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Verdicts:
    """One picture's results, to ask what became of a candidate."""

    found: Found
    limits: Limits
    categories: Sequence[str]

    def reported(self, places: Tensor) -> Chosen:
        """The detections at int64 `places`."""
        index = places.tolist()
        return Chosen(
            self.found.kept.entries[places],
            self.found.kept.boxes[places],
            index,
            [Outcome()] * len(index),
        )

    def strongest(self, number: int, labels: Sequence[int]) -> Chosen:
        """The best-scoring candidates for `labels`, before suppression, best first."""
        if not len(self.found.raw.scores):
            return self._nothing()
        which = torch.tensor(list(labels), device=self.found.raw.scores.device)
        values = self.found.raw.scores[:, which].flatten()
        _, order = values.topk(min(number, len(values)))
        return self._candidates(order // len(which), which[order % len(which)])

    def nearest(self, box: Sequence[float], labels: Sequence[int]) -> Chosen:
        """The candidate for one of `labels` whose box has the highest IoU with `box` (picture
        pixels), the better score among equals; where none overlaps the one whose middle is nearest.
        No candidates give an empty Chosen.
        """
        number = len(self.found.raw.scores)
        if not number:
            return self._nothing()
        given = torch.tensor([box]).to(self.found.raw.boxes)
        which = torch.tensor(list(labels), device=given.device).repeat(number)
        candidate = torch.arange(number, device=given.device).repeat_interleave(len(labels))
        boxes = self.found.raw.boxes_of(candidate, which)
        boxes = self.found.features.inputs.on_picture(boxes)
        overlap = box_iou(given, boxes)[0]
        if not bool((overlap > 0).any()):
            middles = (boxes[:, :2] + boxes[:, 2:]) / 2
            overlap = -((given[:, :2] + given[:, 2:]) / 2 - middles).norm(dim=1)
        scores = self.found.raw.scores[candidate, which]
        best = torch.where(overlap == overlap.max())[0]
        place = best[scores[best].argmax()][None]
        return self._candidates(candidate[place], which[place])

    def _nothing(self) -> Chosen:
        return self.reported(torch.zeros(0, dtype=torch.int64, device=self.found.raw.scores.device))

    def _candidates(self, candidate: Tensor, label: Tensor) -> Chosen:
        raw = self.found.raw
        scores = raw.scores[candidate, label]
        entries = Entries(raw.boxes_of(candidate, label), label, scores, candidate)
        boxes = self.found.features.inputs.on_picture(entries.boxes)
        outcomes = [self._outcome(entries, place) for place in range(len(entries))]
        return Chosen(entries, boxes, list(range(len(entries))), outcomes)

    def _outcome(self, entries: Entries, place: int) -> Outcome:
        candidate, label = entries.candidate[place], entries.labels[place]
        before, survivors, limits = self.found.kept.before, self.found.kept.survivors, self.limits
        found = torch.where((before.candidate == candidate) & (before.labels == label))[0]
        if not len(found):
            return Outcome(self._never_entered(entries, place))
        rank = torch.where(survivors == found[0])[0]
        if len(rank):
            if int(rank[0]) < limits.detections:
                return Outcome(f"reported as box {int(rank[0])}")
            return Outcome(f"beyond the limit of {limits.detections} boxes")
        same = torch.where(before.labels[survivors] == label)[0]
        overlap = box_iou(before.boxes[found], before.boxes[survivors[same]])[0]
        over = torch.where(overlap > limits.iou)[0]
        # Suppression may round an IoU at the threshold differently.
        which = over[0] if len(over) else overlap.argmax()
        return self._suppressed(int(same[which]), float(overlap[which]))

    def _suppressed(self, rank: int, overlap: float) -> Outcome:
        by = self.found.kept.before[self.found.kept.survivors[rank : rank + 1]]
        name = f"{self.categories[int(by.labels[0])]} {shown_score(float(by.scores[0]))}"
        why = f"IoU {overlap:.2f}, above {self.limits.iou:g}"
        if rank < self.limits.detections:
            return Outcome(f"suppressed by box {rank} ({name}; {why})", suppressed_by=rank)
        return Outcome(f"suppressed by {name}, itself beyond the limit ({why})")

    def _never_entered(self, entries: Entries, place: int) -> str:
        score, limits = float(entries.scores[place]), self.limits
        if score <= limits.score:
            return f"below the score threshold of {limits.score:g}"
        own = self.found.raw.scores[entries.candidate[place]]
        best = int(own.argmax())
        if limits.best_label and best != int(entries.labels[place]):
            return f"counts for {self.categories[best]} {shown_score(float(own[best]))} alone"
        if limits.otherwise:
            return limits.otherwise
        if limits.strongest is None:
            x1, y1, x2, y2 = entries.boxes[place].tolist()
            return f"no box: {x2 - x1:.3f} x {y2 - y1:.3f} pixels of the network input"
        return f"beyond the {limits.strongest} strongest of its {limits.strongest_of}"

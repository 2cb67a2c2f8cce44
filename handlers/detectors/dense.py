"""What detectors share whose heads are convolutions on feature maps: every cell's every anchor is a
candidate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import boxes as box_ops

from handlers.detectors.base import (
    Candidates,
    Cells,
    Entries,
    Features,
    Found,
    Inputs,
    Part,
    PartKind,
    Raw,
)
from handlers.detectors.selection import SuppressingDetector
from handlers.targets.lazy import LazyOutputs
from handlers.targets.registry import Outputs

# What a head gives, by name: [B, R, *] for all anchors of a map (rows of cells, a cell's anchors
# side by side).
Heads = Mapping[str, Tensor]


class DenseDetector(SuppressingDetector):
    """`score` and `part`; a family says how its heads run, score, decode and reach.

    Heads give "logits" [..., K], "regression" [..., *] and whatever else the scores need.
    """

    model: Any
    outputs: tuple[str, ...] = ("logits", "scores", "boxes")
    # Outputs [..., 1] of the heads that are targets of their own.
    extra_outputs: tuple[str, ...] = ()
    # The heads take all feature maps together.
    together = False

    def head_on(self, maps: Tensor, level: int) -> Heads:
        """The heads on maps [B, C, h, w] of one level: [B, h * w * A, *] each. One whose heads run
        `together` has `heads` and `head_beside` instead."""
        raise NotImplementedError(f"{type(self).__name__} has no head_on")

    def heads(self, maps: Sequence[Tensor]) -> list[Heads]:
        """The heads on all feature maps, level by level."""
        return [self.head_on(each, level) for level, each in enumerate(maps)]

    def head_beside(self, maps: Tensor, level: int, others: Sequence[Tensor]) -> Heads:
        """`head_on` where the picture's feature maps are `others`: only of use if `together`."""
        return self.head_on(maps, level)

    @abstractmethod
    def probabilities(self, heads: Heads) -> Tensor:
        """The reported scores [..., K] of heads [..., *]."""

    def probability(self, heads: Heads, labels: Tensor) -> Tensor:
        """The reported scores [N] of labels [N], differentiable, of heads [N, *]."""
        return self.probabilities(heads).gather(1, labels[:, None])[:, 0]

    @abstractmethod
    def decode(self, regression: Tensor, anchors: Tensor, level: Tensor) -> Tensor:
        """Boxes [N, 4] of regression [N, *] and anchors [N, 4] on feature maps int64 [N]."""

    @abstractmethod
    def per_cell(self) -> list[int]:
        """How many anchors a cell has, on each feature map."""

    def reach(self, level: int) -> int | None:
        """How many cells around its own an output depends on, None if on all or unknown."""
        return None

    def convolutions(self, level: int) -> list[nn.Module]:
        """The head's modules on a level that look beyond a cell."""
        return []

    def clip(self, boxes: Tensor, inputs: Inputs, picture: int = 0) -> Tensor:
        """Boxes [N, 4] in pixels of the network input, cut at the picture's border."""
        clipped: Tensor = box_ops.clip_boxes_to_image(boxes, inputs.sizes[picture])
        return clipped

    def anchored(self, boxes: list[Tensor], maps: Sequence[Tensor]) -> list[Candidates]:
        """Candidates of each picture's anchors [R, 4], level by level."""
        counts = [
            number * each.shape[-2] * each.shape[-1]
            for number, each in zip(self.per_cell(), maps, strict=True)
        ]
        device = maps[0].device
        level = torch.repeat_interleave(torch.tensor(counts)).to(device)
        place = torch.cat([torch.arange(count) for count in counts]).to(device)
        return [Candidates(each, level, level, place) for each in boxes]

    def score(self, features: Features, candidates: list[Candidates]) -> list[Raw]:
        each_level = self.heads([*features.maps.values()])
        heads = {name: torch.cat([each[name] for each in each_level], 1) for name in each_level[0]}
        raw = []
        for picture, own in enumerate(candidates):
            one = {name: each[picture] for name, each in heads.items()}
            boxes = self.decode(one["regression"], own.boxes, own.level)
            if not features.inputs.late_clip:
                boxes = self.clip(boxes, features.inputs, picture)
            raw.append(Raw(one["logits"], self.probabilities(one), boxes[:, None]))
        return raw

    def parts(self) -> Mapping[str, PartKind]:
        return {"head": PartKind((*self.outputs, *self.extra_outputs), pooled=False)}

    def part(self, name: str, found: Found, chosen: Entries) -> Part:
        labels, candidates = chosen.labels, found.candidates
        anchors, level = candidates.boxes[chosen.candidate], candidates.level[chosen.candidate]
        anchor = candidates.anchor[chosen.candidate]
        row, column, which = anchor_cells(anchor, level, self.per_cell(), found.maps)

        def convolve(maps: Tensor, level: int) -> Heads:
            return _on_cells(self.head_beside(maps, level, found.maps), maps)

        def convolve_all(maps: Sequence[Tensor]) -> list[Heads]:
            heads = self.heads(maps)
            return [_on_cells(each, own) for each, own in zip(heads, maps, strict=True)]

        def read(heads: Heads, places: Tensor, where: tuple[Tensor, Tensor, Tensor]) -> Outputs:
            own = {name: each[(*where, which[places])] for name, each in heads.items()}

            def boxes() -> Tensor:
                decoded = self.decode(own["regression"], anchors[places], level[places])
                return self.clip(decoded, found.features.inputs)

            return LazyOutputs(
                {"scores": lambda: self.probability(own, labels[places]), "boxes": boxes},
                labels=labels[places],
                logits=own["logits"],
                **{name: own[name][:, 0] for name in self.extra_outputs},
            )

        raw, candidate = found.raw, chosen.candidate
        whole = Outputs(
            labels=labels,
            logits=raw.logits[candidate],
            scores=raw.scores[candidate, labels],
            boxes=self.clip(raw.boxes_of(candidate, labels), found.features.inputs),
        )
        return Cells(
            whole=whole,
            level=level,
            row=row,
            column=column,
            convolve=convolve,
            convolve_all=convolve_all if self.together else None,
            read=read,
            reach=self.reach,
            convolutions=self.convolutions,
        )


def anchor_cells(
    anchor: Tensor, level: Tensor, per_cell: Sequence[int], maps: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Of anchors (places [N] among those of their feature map) the row, the column and the place
    among their cell's anchors; per_cell: how many a cell has, on each map."""
    number = torch.tensor(per_cell).to(level)[level]
    width = torch.tensor([each.shape[-1] for each in maps]).to(level)[level]
    cell = anchor // number
    return cell // width, cell % width, anchor % number


def _on_cells(heads: Heads, maps: Tensor) -> Heads:
    """[B, h, w, A, *] of [B, h * w * A, *]."""
    batch, _, height, width = maps.shape
    return {
        name: each.reshape(batch, height, width, -1, each.shape[-1]) for name, each in heads.items()
    }


def pairs(raw: Raw, places: Tensor) -> Entries:
    """Entries of the flat places in scores [R, K]."""
    classes = raw.scores.shape[1]
    candidate, label = places // classes, places % classes
    return Entries(raw.boxes_of(candidate, label), label, raw.scores.flatten()[places], candidate)

"""What torchvision's one-stage detectors share: every anchor is a candidate, and the heads are
convolutions on the feature maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import boxes as box_ops

from handlers.detectors.base import (
    Candidates,
    Cells,
    Entries,
    Features,
    Found,
    Limits,
    Part,
    PartKind,
    Raw,
)
from handlers.detectors.selection import strongest
from handlers.detectors.torchvision_base import (
    TorchvisionDetector,
    anchor_cells,
    convolutions,
    reach,
)
from handlers.targets.registry import Outputs

# What a head gives, by name: [B, R, *] for all anchors, [B, h, w, A, *] on one map.
Heads = Mapping[str, Tensor]


class OneStageDetector(TorchvisionDetector):
    """The four verbs; a family says how its heads score, decode and limit."""

    outputs: tuple[str, ...] = ("logits", "scores", "boxes")
    # What topk_candidates counts in.
    strongest_of = "feature map"

    @abstractmethod
    def head_on(self, maps: Tensor, level: int) -> Heads:
        """The heads on maps [B, C, h, w] of one level: [B, h * w * A, *] each."""

    @abstractmethod
    def head_modules(self, level: int) -> list[list[nn.Module]]:
        """The chains of modules that `head_on` runs on a level."""

    @abstractmethod
    def probabilities(self, heads: Heads) -> Tensor:
        """The reported scores [..., K] of heads [..., *]."""

    def probability(self, heads: Heads, labels: Tensor) -> Tensor:
        """The reported scores [N] of labels [N], differentiable, of heads [N, *]."""
        return self.probabilities(heads).gather(1, labels[:, None])[:, 0]

    @abstractmethod
    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """Boxes [N, 4] of regression [N, 4] and anchors [N, 4]."""

    def propose(self, features: Features) -> list[Candidates]:
        inputs, maps = features.inputs, list(features.maps.values())
        anchors = self.model.anchor_generator(ImageList(inputs.tensors, inputs.sizes), maps)
        counts = [
            per_cell * each.shape[-2] * each.shape[-1]
            for per_cell, each in zip(self._per_cell(), maps, strict=True)
        ]
        device = inputs.tensors.device
        level = torch.repeat_interleave(torch.tensor(counts)).to(device)
        place = torch.cat([torch.arange(count) for count in counts]).to(device)
        return [Candidates(boxes, level, level, place) for boxes in anchors]

    def _per_cell(self) -> list[int]:
        numbers: list[int] = self.model.anchor_generator.num_anchors_per_location()
        return numbers

    def score(self, features: Features, candidates: list[Candidates]) -> list[Raw]:
        each_level = [
            self.head_on(maps, level) for level, maps in enumerate(features.maps.values())
        ]
        heads = {name: torch.cat([each[name] for each in each_level], 1) for name in each_level[0]}
        raw = []
        for picture, (own, size) in enumerate(zip(candidates, features.inputs.sizes, strict=True)):
            one = {name: each[picture] for name, each in heads.items()}
            boxes = self.decode(one["regression"], own.boxes)
            boxes = box_ops.clip_boxes_to_image(boxes, size)
            raw.append(Raw(one["logits"], self.probabilities(one), boxes[:, None]))
        return raw

    def limits(self) -> Limits:
        model = self.model
        return Limits(
            score=model.score_thresh,
            iou=model.nms_thresh,
            detections=model.detections_per_img,
            strongest=model.topk_candidates,
            strongest_of=self.strongest_of,
        )

    def num_classes(self) -> int:
        number: int = self.model.head.classification_head.num_classes
        return number

    def parts(self) -> Mapping[str, PartKind]:
        return {"head": PartKind(self.outputs, pooled=False)}

    def part(self, name: str, found: Found, chosen: Entries) -> Part:
        labels, candidates = chosen.labels, found.candidates
        anchors, level = candidates.boxes[chosen.candidate], candidates.level[chosen.candidate]
        anchor = candidates.anchor[chosen.candidate]
        row, column, which = anchor_cells(anchor, level, self._per_cell(), found.maps)

        def convolve(maps: Tensor, level: int) -> Heads:
            batch, _, height, width = maps.shape
            return {
                name: each.view(batch, height, width, -1, each.shape[-1])
                for name, each in self.head_on(maps, level).items()
            }

        def read(heads: Heads, places: Tensor, where: tuple[Tensor, Tensor, Tensor]) -> Outputs:
            own = {name: each[(*where, which[places])] for name, each in heads.items()}
            boxes = self.decode(own["regression"], anchors[places])
            scores = self.probability(own, labels[places])
            extra = {"centerness": own["centerness"][:, 0]} if "centerness" in own else {}
            return Outputs(
                labels=labels[places],
                logits=own["logits"],
                scores=scores,
                boxes=box_ops.clip_boxes_to_image(boxes, found.size),
                **extra,
            )

        return Cells(
            level=level,
            row=row,
            column=column,
            convolve=convolve,
            read=read,
            reach=self._reach,
            convolutions=lambda level: convolutions(
                [module for chain in self.head_modules(level) for module in chain]
            ),
        )

    def _reach(self, level: int) -> int | None:
        reaches = [reach(chain) for chain in self.head_modules(level)]
        return None if None in reaches else max(each for each in reaches if each is not None)

    def strongest_of_each_level(self, raw: Raw, candidates: Candidates) -> Entries:
        """RetinaNet's and FCOS's threshold and limit, a feature map at a time."""
        classes = raw.scores.shape[1]
        kept = []
        for level in range(len(self.names)):
            own = torch.where(candidates.level == level)[0]
            first = int(own[0]) * classes if len(own) else 0
            scores = raw.scores[own].flatten()
            best = strongest(scores, self.model.score_thresh, self.model.topk_candidates)
            kept.append(best + first)
        return pairs(raw, torch.cat(kept))


def pairs(raw: Raw, places: Tensor) -> Entries:
    """Entries of the flat places in scores [R, K]."""
    classes = raw.scores.shape[1]
    candidate, label = places // classes, places % classes
    return Entries(raw.boxes_of(candidate, label), label, raw.scores.flatten()[places], candidate)

"""What torchvision's one-stage detectors share: its anchors, its limits, its heads' modules."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import nn
from torchvision.models.detection.image_list import ImageList

from handlers.detectors.base import Candidates, Entries, Features, Limits, Raw
from handlers.detectors.dense import DenseDetector, pairs
from handlers.detectors.selection import strongest
from handlers.detectors.torchvision_base import TorchvisionDetector, convolutions, reach


class OneStageDetector(TorchvisionDetector, DenseDetector):
    """The four verbs; a family says how its heads score and decode."""

    # What topk_candidates counts in.
    strongest_of = "feature map"

    @abstractmethod
    def head_modules(self, level: int) -> list[list[nn.Module]]:
        """The chains of modules that `head_on` runs on a level."""

    def propose(self, features: Features) -> list[Candidates]:
        inputs, maps = features.inputs, list(features.maps.values())
        anchors = self.model.anchor_generator(ImageList(inputs.tensors, inputs.sizes), maps)
        return self.anchored(anchors, maps)

    def per_cell(self) -> list[int]:
        numbers: list[int] = self.model.anchor_generator.num_anchors_per_location()
        return numbers

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

    def reach(self, level: int) -> int | None:
        reaches = [reach(chain) for chain in self.head_modules(level)]
        return None if None in reaches else max(each for each in reaches if each is not None)

    def convolutions(self, level: int) -> list[nn.Module]:
        return convolutions([module for chain in self.head_modules(level) for module in chain])

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

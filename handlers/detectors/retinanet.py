"""torchvision's RetinaNet (Lin et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet

from handlers.detectors.base import Candidates, Entries, Raw
from handlers.detectors.dense import Heads
from handlers.detectors.one_stage import OneStageDetector
from handlers.detectors.registry import ADAPTERS, class_path


@ADAPTERS.register(class_path(RetinaNet))
class RetinaNetDetector(OneStageDetector):
    """Sigmoid scores; at most so many anchors a feature map."""

    first_label = 0

    def head_on(self, maps: Tensor, level: int) -> Heads:
        head = self.model.head
        return {
            "logits": head.classification_head([maps]),
            "regression": head.regression_head([maps]),
        }

    def head_modules(self, level: int) -> list[list[nn.Module]]:
        head = self.model.head
        return [
            [head.classification_head.conv, head.classification_head.cls_logits],
            [head.regression_head.conv, head.regression_head.bbox_reg],
        ]

    def probabilities(self, heads: Heads) -> Tensor:
        return heads["logits"].sigmoid()

    def decode(self, regression: Tensor, anchors: Tensor, level: Tensor) -> Tensor:
        boxes: Tensor = self.model.box_coder.decode_single(regression, anchors)
        return boxes

    def entries(self, raw: Raw, candidates: Candidates) -> Entries:
        return self.strongest_of_each_level(raw, candidates)

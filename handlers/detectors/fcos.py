"""torchvision's FCOS (Tian et al. 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS

from handlers.detectors.base import Candidates, Entries, Raw
from handlers.detectors.dense import Heads
from handlers.detectors.one_stage import OneStageDetector
from handlers.detectors.registry import ADAPTERS, class_path


@ADAPTERS.register(class_path(FCOS))
class FCOSDetector(OneStageDetector):
    """The score is the geometric mean of class probability and centerness."""

    first_label = 0

    extra_outputs = ("centerness",)

    def head_on(self, maps: Tensor, level: int) -> Heads:
        regression, centerness = self.model.head.regression_head([maps])
        return {
            "logits": self.model.head.classification_head([maps]),
            "regression": regression,
            "centerness": centerness,
        }

    def head_modules(self, level: int) -> list[list[nn.Module]]:
        head = self.model.head
        return [
            [head.classification_head.conv, head.classification_head.cls_logits],
            [head.regression_head.conv, head.regression_head.bbox_reg],
            [head.regression_head.conv, head.regression_head.bbox_ctrness],
        ]

    def probabilities(self, heads: Heads) -> Tensor:
        return torch.sqrt(heads["logits"].sigmoid() * heads["centerness"].sigmoid())

    def probability(self, heads: Heads, labels: Tensor) -> Tensor:
        # The root of a product of sigmoids has no finite gradient where one of them underflows.
        logit = heads["logits"].gather(1, labels[:, None])[:, 0]
        return ((F.logsigmoid(logit) + F.logsigmoid(heads["centerness"][:, 0])) / 2).exp()

    def decode(self, regression: Tensor, anchors: Tensor, level: Tensor) -> Tensor:
        boxes: Tensor = self.model.box_coder.decode(regression, anchors)
        return boxes

    def entries(self, raw: Raw, candidates: Candidates) -> Entries:
        return self.strongest_of_each_level(raw, candidates)

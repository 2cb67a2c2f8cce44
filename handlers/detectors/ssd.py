"""torchvision's SSD (Liu et al. 2016) and SSDlite (Sandler et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSD

from handlers.detectors.base import Candidates, Entries, Raw
from handlers.detectors.dense import Heads, pairs
from handlers.detectors.one_stage import OneStageDetector
from handlers.detectors.registry import ADAPTERS, class_path
from handlers.detectors.selection import strongest
from handlers.images import Geometry


@ADAPTERS.register(class_path(SSD))
class SSDDetector(OneStageDetector):
    """Softmax scores with a background; at most so many anchors a category."""

    strongest_of = "category"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        # Pooling 2 x 2 cells into one puts its middle between them; a 3 x 3 window of stride 2
        # keeps it on every other cell.
        pools = (each for each in model.backbone.modules() if isinstance(each, nn.MaxPool2d))
        self.pooled = any((each.kernel_size, each.stride) == (2, 2) for each in pools)

    def on_grid(self, frame: Geometry, height: int, width: int) -> Geometry:
        if self.pooled:
            return frame.on_blocks(height, width)
        return super().on_grid(frame, height, width)

    def head_on(self, maps: Tensor, level: int) -> Heads:
        head = self.model.head
        chains = {"logits": head.classification_head, "regression": head.regression_head}
        results = {}
        for name, chain in chains.items():
            found = chain.module_list[level](maps)
            batch, _, height, width = found.shape
            found = found.view(batch, -1, chain.num_columns, height, width)
            results[name] = found.permute(0, 3, 4, 1, 2).reshape(batch, -1, chain.num_columns)
        return results

    def head_modules(self, level: int) -> list[list[nn.Module]]:
        head = self.model.head
        return [
            [head.classification_head.module_list[level]],
            [head.regression_head.module_list[level]],
        ]

    def probabilities(self, heads: Heads) -> Tensor:
        return F.softmax(heads["logits"], -1)

    def decode(self, regression: Tensor, anchors: Tensor, level: Tensor) -> Tensor:
        boxes: Tensor = self.model.box_coder.decode_single(regression, anchors)
        return boxes

    def entries(self, raw: Raw, candidates: Candidates) -> Entries:
        classes = raw.scores.shape[1]
        kept: list[Tensor] = []
        for label in range(1, classes):
            own = raw.scores[:, label]
            best = strongest(own, self.model.score_thresh, self.model.topk_candidates)
            kept.append(best * classes + label)
        return pairs(raw, torch.cat(kept))

    def num_classes(self) -> int:
        number: int = self.model.head.classification_head.num_columns
        return number

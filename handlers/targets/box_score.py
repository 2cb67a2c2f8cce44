"""The target of pytorch-grad-cam's tutorial on Faster R-CNN, exactly as it is defined there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from handlers.targets.registry import TARGETS, Outputs, Target


class FasterRCNNBoxScoreTarget:
    """sum over the given boxes of IoU plus score of the best-matching box in the outputs.

    "Best" is the box of the highest IoU, whatever its label; where that IoU is not above
    `iou_threshold`, or the label is another, the given box counts zero. `bounding_boxes` [N, 4] and
    `labels` [N] in picture pixels, as arrays, lists or tensors (the tutorial rounds them down to
    whole pixels). Source: "Class Activation Maps for Object Detection with Faster RCNN",
    pytorch-grad-cam's documentation, class FasterRCNNBoxScoreTarget.

    Called with the outputs of one picture ("boxes" [M, 4], "labels" [M], "scores" [M]: an Outputs,
    or what a torchvision detector returns) it gives a tensor of one element.
    """

    def __init__(
        self, labels: Sequence[int], bounding_boxes: Any, iou_threshold: float = 0.5
    ) -> None:
        self.labels = [int(label) for label in labels]
        if isinstance(bounding_boxes, (list, tuple)):
            bounding_boxes = [torch.as_tensor(box).tolist() for box in bounding_boxes]
        self.bounding_boxes = torch.as_tensor(bounding_boxes, dtype=torch.float32).reshape(-1, 4)
        self.iou_threshold = iou_threshold
        if len(self.labels) != len(self.bounding_boxes):
            raise ValueError(
                f"got {len(self.labels)} labels for {len(self.bounding_boxes)} boxes; expected one"
                " for each"
            )

    def __call__(self, outputs: Outputs | Mapping[str, Tensor]) -> Tensor:
        boxes, labels, scores = outputs["boxes"], outputs["labels"], outputs["scores"]
        total = boxes.new_zeros(1)
        if not len(boxes):
            return total
        overlaps = box_iou(self.bounding_boxes.to(boxes.device), boxes)
        for label, overlap in zip(self.labels, overlaps, strict=True):
            best = overlap.argmax()
            if overlap[best] > self.iou_threshold and labels[best] == label:
                total = total + overlap[best] + scores[best]
        return total


def _box_score(outputs: Outputs, _: str) -> list[Tensor]:
    """The tutorial's use of it: the chosen boxes, cut to whole pixels, against all the outputs."""
    chosen = outputs["chosen"]
    whole_pixels = outputs["boxes"][chosen].detach().to(torch.int32)
    return [FasterRCNNBoxScoreTarget(outputs["labels"][chosen].tolist(), whole_pixels)(outputs)]


TARGETS.register("box_score")(Target(("scores", "boxes"), _box_score, joint=True))

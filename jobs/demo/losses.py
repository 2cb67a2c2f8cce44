"""What a detector of each family is trained to make small, all in the form that torchvision's have:
pictures and true boxes in, losses by name out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_convert, box_iou, generalized_box_iou_loss

from handlers.detectors.base import Detector, Inputs
from handlers.detectors.canvas import cell_anchors
from handlers.detectors.detr import QueryDetector
from handlers.detectors.registry import detector_for
from handlers.detectors.yolo import YOLOLike

# float32 pictures [3, H, W] of 0 ... 1, and for each "boxes" [N, 4], x1, y1, x2, y2 in its pixels,
# and "labels" [N], from 1.
Targets = Sequence[Mapping[str, Tensor]]
Losses = Callable[[Sequence[Tensor], Targets], Mapping[str, Tensor]]
# Cells within so many strides of an object's middle may answer for it (Tian et al. 2022).
RADIUS = 1.5
# The farthest edge of an object that a map's cells answer for, in their strides (FCOS: 8 of them).
FARTHEST = 8.0
BOX_WEIGHT = 2.0  # as RTMDet's


def losses_of(model: nn.Module) -> Losses:
    """How `model` is trained: torchvision's detectors say it themselves."""
    if isinstance(model, YOLOLike):
        return YOLOLosses(model, detector_for(model))
    if isinstance(getattr(model, "transform", None), GeneralizedRCNNTransform):
        return lambda pictures, targets: model([*pictures], [*targets])
    return TransformerLosses(model, detector_for(model))


def _prepared(
    detector: Detector, pictures: Sequence[Tensor], targets: Targets
) -> tuple[Inputs, list[Tensor]]:
    """Pictures as the detector takes them when it serves, and the true boxes on its input."""
    several = [detector.prepare((picture * 255).round().to(torch.uint8)) for picture in pictures]
    frames = [each.geometries[0] for each in several]
    shapes = {tuple(each.tensors.shape[-2:]) for each in several}
    if len(shapes) > 1:
        raise ValueError(f"network inputs of {sorted(shapes)} in one batch; expected one size")
    tensors = torch.cat([each.tensors for each in several])
    boxes = [
        frame.boxes_on_frame(target["boxes"]) for frame, target in zip(frames, targets, strict=True)
    ]
    return Inputs(tensors, [each.sizes[0] for each in several], frames), boxes


class TransformerLosses:
    """The transformers library's own: matched boxes, each decoder layer's, and denoising."""

    def __init__(self, model: nn.Module, detector: Detector) -> None:
        if not isinstance(detector, QueryDetector):
            raise TypeError(f"no losses for a {type(model).__name__}")
        self.model, self.detector = model, detector

    def __call__(self, pictures: Sequence[Tensor], targets: Targets) -> Mapping[str, Tensor]:
        inputs, boxes = _prepared(self.detector, pictures, targets)
        labels = []
        for own, (height, width), target in zip(boxes, inputs.sizes, targets, strict=True):
            shares = own / own.new_tensor([width, height, width, height])
            boxes_by_middle = box_convert(shares, "xyxy", "cxcywh")
            labels.append({"class_labels": target["labels"] - 1, "boxes": boxes_by_middle})
        found: Any = self.model(pixel_values=inputs.tensors, labels=labels)
        return {"all": found.loss}


class YOLOLosses:
    """Of a head with logits and distances: the quality focal loss of scores, whose truth is the
    overlap of the cell's box with its object (Li et al. 2020), and the generalised IoU of boxes."""

    def __init__(self, model: YOLOLike, detector: Detector) -> None:
        self.model, self.detector = model, detector
        sizes = model.layout.map_sizes()
        self.cells = torch.cat(
            [
                cell_anchors([(stride, stride)], stride, size, torch.ones(1))
                for stride, size in zip(model.layout.strides, sizes, strict=True)
            ]
        )

    def __call__(self, pictures: Sequence[Tensor], targets: Targets) -> Mapping[str, Tensor]:
        inputs, truths = _prepared(self.detector, pictures, targets)
        logits, distances = (
            torch.cat([each.flatten(2) for each in group], 2).transpose(1, 2).float()
            for group in self.model(inputs.tensors)
        )
        cells = self.cells.to(logits)
        strides = (cells[:, 2] - cells[:, 0])[:, None]
        middles = (cells[:, :2] + cells[:, 2:]) / 2
        boxes = torch.cat(
            [middles - distances[..., :2] * strides, middles + distances[..., 2:] * strides], -1
        )
        quality, losses = torch.zeros_like(logits), []
        for picture, (truth, target) in enumerate(zip(truths, targets, strict=True)):
            owner = assigned(truth, cells)
            own = owner >= 0
            matched = truth[owner[own]]
            overlap = box_iou(boxes[picture, own].detach(), matched).diagonal()
            labels = target["labels"].to(owner)[owner[own]] - 1
            quality[picture, own.nonzero()[:, 0], labels] = overlap
            losses.append(generalized_box_iou_loss(boxes[picture, own], matched, reduction="none"))
        box = torch.cat(losses)
        entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
        score = entropy * (quality - logits.sigmoid()).abs() ** 2
        number = max(1, len(box))
        return {"classification": score.sum() / number, "box": BOX_WEIGHT * box.sum() / number}


def assigned(truth: Tensor, cells: Tensor) -> Tensor:
    """Of each cell the object that it answers for, int64 [N]: its place in `truth`, or -1.

    A cell answers for an object whose box holds the cell's middle, whose own middle is within
    RADIUS strides, and whose farthest edge is within FARTHEST strides, but not within half of that
    unless the cell is of the finest map, or beyond it if it is of the coarsest; of several for the
    smallest. For an object that has none the finest cell does whose middle is nearest to its own.

    truth: [T, 4]; cells: [N, 4], both x1, y1, x2, y2 in pixels of the network input.
    """
    if not len(truth):
        return torch.full((len(cells),), -1, device=cells.device)
    strides = cells[:, 2] - cells[:, 0]
    middles = (cells[:, :2] + cells[:, 2:]) / 2
    edges = torch.cat([middles[:, None] - truth[:, :2], truth[:, 2:] - middles[:, None]], -1)
    farthest = edges.amax(-1) / strides[:, None]
    off = (middles[:, None] - (truth[:, :2] + truth[:, 2:]) / 2).abs().amax(-1)
    finest, coarsest = (strides == strides.min())[:, None], (strides == strides.max())[:, None]
    fits = (
        (edges.amin(-1) > 0)
        & (off < RADIUS * strides[:, None])
        & (finest | (farthest > FARTHEST / 2))
        & (coarsest | (farthest <= FARTHEST))
    )
    area = (truth[:, 2] - truth[:, 0]) * (truth[:, 3] - truth[:, 1])
    least, owner = torch.where(fits, area, torch.inf).min(1)
    owner = torch.where(least.isfinite(), owner, -1)
    nearest = torch.where(finest, off, torch.inf).argmin(0)
    for place in (~fits.any(0)).nonzero().flatten().tolist():
        owner[nearest[place]] = place
    return owner

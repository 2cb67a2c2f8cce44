"""torchvision's Faster R-CNN (Ren et al. 2015), any backbone, with or without a pyramid."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops import boxes as box_ops

from handlers.detectors.base import Features, Inputs, Kept, Raw, Regions
from handlers.detectors.registry import ADAPTERS, class_path
from handlers.detectors.roi_align import pooling_matrices
from handlers.images import Geometry, PictureError

EDGES = ("x1", "y1", "x2", "y2")


@ADAPTERS.register(class_path(FasterRCNN))
class FasterRCNNDetector:
    """The four verbs of handlers/detectors/base.py, by the stock model's own modules.

    Every step calls the same operators in the same order as `GeneralizedRCNN.forward` and
    `RoIHeads.postprocess_detections`, so a picture alone gives the stock model's numbers exactly.
    """

    def __init__(self, model: Any) -> None:
        # FasterRCNN's submodules are typed as Module | Tensor; `Any` keeps their real interfaces.
        self.model = model
        self.roi_heads = model.roi_heads
        self.pool = model.roi_heads.box_roi_pool
        self.levels = self._find_levels()

    @torch.no_grad()
    def _find_levels(self) -> list[str]:
        """Names of the maps that the pool reads, in its order, and fixes the pool's strides."""
        device = next(self.model.parameters()).device
        maps = self._maps(torch.zeros(1, 3, 256, 256, device=device))
        # MultiScaleRoIAlign guesses its strides from the first picture it meets and keeps them; a
        # very narrow one would mislead it. A square one decides here instead.
        if self.pool.scales is None:
            self.pool(maps, [torch.zeros(0, 4, device=device)], [(256, 256)])
        return [name for name in maps if name in self.pool.featmap_names]

    def _maps(self, tensors: Tensor) -> dict[str, Tensor]:
        maps = self.model.backbone(tensors)
        return OrderedDict([("0", maps)]) if isinstance(maps, Tensor) else maps

    def prepare(self, picture: Tensor) -> Inputs:
        height, width = picture.shape[-2:]
        device = next(self.model.parameters()).device
        transform = self.model.transform
        short, long = sorted((height, width))
        scale = min(transform.min_size[-1] / short, transform.max_size / long)
        if int(short * scale) < 1:
            raise PictureError(
                f"a picture of {width} x {height} pixels is too narrow for this detector: resized"
                f" to {transform.max_size} pixels, nothing is left of its shorter side"
            )
        images, _ = transform([picture.to(device).float() / 255])
        (resized_height, resized_width) = images.image_sizes[0]
        padded_height, padded_width = images.tensors.shape[-2:]
        geometry = Geometry(
            picture_width=width,
            picture_height=height,
            frame_width=float(padded_width),
            frame_height=float(padded_height),
            scale_x=resized_width / width,
            scale_y=resized_height / height,
        )
        return Inputs(images.tensors, [(resized_height, resized_width)], [geometry])

    def features(self, inputs: Inputs) -> Features:
        return Features(inputs, self._maps(inputs.tensors))

    def propose(self, features: Features) -> list[Tensor]:
        images = ImageList(features.inputs.tensors, features.inputs.sizes)
        proposals, _ = self.model.rpn(images, features.maps)
        return list(proposals)

    def score(self, features: Features, candidates: list[Tensor]) -> list[Raw]:
        sizes = features.inputs.sizes
        counts = [len(boxes) for boxes in candidates]
        pooled = self.pool(features.maps, candidates, sizes)
        logits, regression = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        boxes = self.roi_heads.box_coder.decode(regression, candidates)
        return [
            Raw(own_pooled, own_logits, box_ops.clip_boxes_to_image(own_boxes, size))
            for own_pooled, own_logits, own_boxes, size in zip(
                pooled.split(counts), logits.split(counts), boxes.split(counts), sizes, strict=True
            )
        ]

    def head(self, pooled: Tensor, frames: Tensor, size: tuple[int, int]) -> Raw:
        logits, regression = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        boxes = self.roi_heads.box_coder.decode(regression, [frames])
        return Raw(pooled, logits, box_ops.clip_boxes_to_image(boxes, size))

    def select(self, features: Features, candidates: list[Tensor], raw: list[Raw]) -> list[Kept]:
        return [
            self._select_one(each, boxes, size, geometry)
            for each, boxes, size, geometry in zip(
                raw, candidates, features.inputs.sizes, features.inputs.geometries, strict=True
            )
        ]

    def _select_one(
        self, raw: Raw, proposals: Tensor, size: tuple[int, int], geometry: Geometry
    ) -> Kept:
        number, classes = raw.logits.shape
        scores = F.softmax(raw.logits, -1)[:, 1:].reshape(-1)
        boxes = raw.boxes[:, 1:].reshape(-1, 4)
        device = scores.device
        labels = torch.arange(1, classes, device=device).expand(number, -1).reshape(-1)
        candidate = torch.arange(number, device=device).repeat_interleave(classes - 1)
        kept = torch.where(scores > self.roi_heads.score_thresh)[0]
        kept = kept[box_ops.remove_small_boxes(boxes[kept], min_size=1e-2)]
        order = box_ops.batched_nms(
            boxes[kept], scores[kept], labels[kept], self.roi_heads.nms_thresh
        )
        kept = kept[order[: self.roi_heads.detections_per_img]]
        picture_size = [geometry.picture_height, geometry.picture_width]
        return Kept(
            boxes=resize_boxes(boxes[kept], list(size), picture_size),
            labels=labels[kept],
            scores=scores[kept],
            candidate=candidate[kept],
            level=self._levels(proposals[candidate[kept]]),
        )

    def _levels(self, proposals: Tensor) -> Tensor:
        if len(self.levels) == 1:
            return torch.zeros(len(proposals), dtype=torch.int64, device=proposals.device)
        levels: Tensor = self.pool.map_levels([proposals])
        return levels

    def num_classes(self) -> int:
        number: int = self.roi_heads.box_predictor.cls_score.out_features
        return number

    def level_names(self) -> list[str]:
        return self.levels

    def regions(
        self, features: Features, picture: int, frames: Tensor, level: int, pooled: Tensor
    ) -> Regions:
        name, scale = self.levels[level], self.pool.scales[level]
        activation = features.maps[name][picture]
        _, height, width = activation.shape
        rows, columns = pooling_matrices(
            frames, scale, (height, width), self.pool.output_size, self.pool.sampling_ratio
        )
        whole = features.inputs.geometries[picture]
        return Regions(
            level=name,
            activation=activation,
            pooled=pooled,
            rows=rows,
            columns=columns,
            geometry=whole.on_samples(height, width),
            crops=[whole.crop(frame, least=1 / scale) for frame in frames.tolist()],
        )

    def targets(self) -> list[str]:
        return ["class", "probability", *EDGES, "box"]

    def target(self, name: str, raw: Raw, labels: Tensor) -> Sequence[Tensor]:
        """class: the logit; probability: the reported score; x1 ... y2: the box's edge after
        clipping, in pixels of the network input (its gradient is zero at the picture's border);
        box: all four edges."""
        own = torch.arange(len(labels), device=labels.device)
        if name == "class":
            return [raw.logits[own, labels]]
        if name == "probability":
            return [F.softmax(raw.logits, -1)[own, labels]]
        edges = raw.boxes[own, labels]
        chosen = EDGES if name == "box" else (name,)
        return [edges[:, EDGES.index(edge)] for edge in chosen]

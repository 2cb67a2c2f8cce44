"""torchvision's Faster R-CNN (Ren et al. 2015) with any backbone, with or without a pyramid; and
what is built on it: Mask R-CNN (He et al. 2017) and Keypoint R-CNN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import boxes as box_ops

from handlers.detectors.base import (
    Candidates,
    Cells,
    Entries,
    Features,
    Found,
    Limits,
    LinearStart,
    Part,
    PartKind,
    Raw,
    RoIs,
)
from handlers.detectors.dense import anchor_cells
from handlers.detectors.registry import ADAPTERS, class_path
from handlers.detectors.roi_align import pooling_matrices
from handlers.detectors.torchvision_base import (
    TorchvisionDetector,
    convolutions,
    reach,
)
from handlers.tap import NonFiniteError, all_finite
from handlers.targets.lazy import LazyOutputs
from handlers.targets.registry import Outputs

SMALLEST = 1e-2  # torchvision drops boxes with a shorter side, in pixels


@ADAPTERS.register(class_path(FasterRCNN))
class FasterRCNNDetector(TorchvisionDetector):
    """The four verbs by the modules of `GeneralizedRCNN.forward` and `RoIHeads`."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.rpn = model.rpn
        self.heads = model.roi_heads

    def _probe(self) -> dict[str, Tensor]:
        maps = super()._probe()
        # MultiScaleRoIAlign guesses its strides from the first picture it meets and keeps them; a
        # very narrow one would mislead it. A square one decides here instead.
        heads = self.model.roi_heads
        for pool in (heads.box_roi_pool, heads.mask_roi_pool, heads.keypoint_roi_pool):
            if pool is not None and pool.scales is None:
                device = next(iter(maps.values())).device
                pool(maps, [torch.zeros(0, 4, device=device)], [(256, 256)])
        return maps

    def propose(self, features: Features) -> list[Candidates]:
        """RegionProposalNetwork.forward, and for each proposal its anchor."""
        rpn, sizes = self.rpn, features.inputs.sizes
        maps = list(features.maps.values())
        objectness, deltas = rpn.head(maps)
        anchors = rpn.anchor_generator(ImageList(features.inputs.tensors, sizes), maps)
        if not all_finite([*objectness, *deltas]):
            raise NonFiniteError("the outputs of rpn.head are not finite (NaN or infinity)")
        counts = [each[0].numel() for each in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        boxes = rpn.box_coder.decode(deltas, anchors).view(len(anchors), -1, 4)
        objectness = objectness.reshape(len(anchors), -1)
        best = rpn._get_top_n_idx(objectness, counts)
        level = torch.repeat_interleave(torch.tensor(counts)).to(best)
        first = torch.tensor([0, *counts]).cumsum(0).to(best)
        scores = objectness.gather(1, best).sigmoid()
        return [
            self._filter(own[index], score, level[index], index - first[level[index]], size)
            for own, score, index, size in zip(boxes, scores, best, sizes, strict=True)
        ]

    def _filter(
        self, boxes: Tensor, scores: Tensor, level: Tensor, anchor: Tensor, size: tuple[int, int]
    ) -> Candidates:
        """RegionProposalNetwork.filter_proposals for one picture."""
        rpn = self.rpn
        boxes = box_ops.clip_boxes_to_image(boxes, size)
        kept = box_ops.remove_small_boxes(boxes, rpn.min_size)
        kept = kept[torch.where(scores[kept] >= rpn.score_thresh)[0]]
        order = box_ops.batched_nms(boxes[kept], scores[kept], level[kept], rpn.nms_thresh)
        kept = kept[order[: rpn.post_nms_top_n()]]
        proposals = boxes[kept]
        pooled_from = self._pool_levels(self.heads.box_roi_pool, proposals)
        return Candidates(proposals, pooled_from, level[kept], anchor[kept])

    def _pool_levels(self, pool: Any, boxes: Tensor) -> Tensor:
        """Which feature map a pool reads for each box: int64 [N] into `level_names`."""
        known = [name for name in self.names if name in pool.featmap_names]
        places = torch.tensor([self.names.index(name) for name in known], device=boxes.device)
        if len(known) == 1:
            return places.expand(len(boxes))
        chosen: Tensor = places[pool.map_levels([boxes])]
        return chosen

    def score(self, features: Features, candidates: list[Candidates]) -> list[Raw]:
        sizes = features.inputs.sizes
        proposals = [each.boxes for each in candidates]
        counts = [len(boxes) for boxes in proposals]
        pooled = self.heads.box_roi_pool(features.maps, proposals, sizes)
        logits, regression = self.heads.box_predictor(self.heads.box_head(pooled))
        boxes = self.heads.box_coder.decode(regression, proposals)
        scores = F.softmax(logits, -1)
        return [
            Raw(own_logits, own_scores, box_ops.clip_boxes_to_image(own_boxes, size), own_pooled)
            for own_pooled, own_logits, own_scores, own_boxes, size in zip(
                *(each.split(counts) for each in (pooled, logits, scores, boxes)),
                sizes,
                strict=True,
            )
        ]

    def entries(self, raw: Raw, candidates: Candidates) -> Entries:
        """What RoIHeads.postprocess_detections has before suppression."""
        number, classes = raw.logits.shape
        scores = raw.scores[:, 1:].reshape(-1)
        boxes = raw.boxes[:, 1:].reshape(-1, 4)
        labels = torch.arange(1, classes, device=scores.device).expand(number, -1).reshape(-1)
        candidate = torch.arange(number, device=scores.device).repeat_interleave(classes - 1)
        kept = torch.where(scores > self.heads.score_thresh)[0]
        kept = kept[box_ops.remove_small_boxes(boxes[kept], min_size=SMALLEST)]
        return Entries(boxes[kept], labels[kept], scores[kept], candidate[kept])

    def limits(self) -> Limits:
        heads = self.heads
        return Limits(heads.score_thresh, heads.nms_thresh, heads.detections_per_img)

    def num_classes(self) -> int:
        number: int = self.heads.box_predictor.cls_score.out_features
        return number

    def parts(self) -> Mapping[str, PartKind]:
        parts = {
            "box": PartKind(("logits", "scores", "boxes"), pooled=True),
            "objectness": PartKind(("objectness",), pooled=False),
        }
        if self.heads.has_mask():
            parts["mask"] = PartKind(("mask_logits",), pooled=True)
        if self.heads.has_keypoint():
            number = self.heads.keypoint_predictor.kps_score_lowres.out_channels
            parts["keypoint"] = PartKind(("keypoint_logits",), pooled=True, keypoints=number)
        return parts

    def part(self, name: str, found: Found, chosen: Entries) -> Part:
        size, labels = found.size, chosen.labels
        if name == "objectness":
            return self._objectness(found, chosen)
        if name == "box":
            frames = found.candidates.boxes[chosen.candidate]

            def box(pooled: Tensor, places: Tensor) -> Outputs:
                own = labels[places]
                logits, regression = self.heads.box_predictor(self.heads.box_head(pooled))
                boxes = self.heads.box_coder.decode(regression, [frames[places]])
                row = torch.arange(len(own), device=own.device)
                return Outputs(
                    labels=own,
                    logits=logits,
                    scores=F.softmax(logits, -1)[row, own],
                    boxes=box_ops.clip_boxes_to_image(boxes, size)[row, own],
                )

            assert found.raw.pooled is not None  # score() gives it
            pooled = found.raw.pooled[chosen.candidate]
            linear = self._linear_start(frames, labels, size)
            return self._rois(self.heads.box_roi_pool, found, frames, box, pooled, linear)
        # Masks and keypoints are pooled from the final box, perhaps at another level.
        head, predictor, output = (
            (self.heads.mask_head, self.heads.mask_predictor, "mask_logits")
            if name == "mask"
            else (self.heads.keypoint_head, self.heads.keypoint_predictor, "keypoint_logits")
        )

        def inside(pooled: Tensor, places: Tensor) -> Outputs:
            own = labels[places]
            logits = predictor(head(pooled))
            if name == "mask":
                logits = logits[torch.arange(len(own), device=own.device), own]
            return Outputs(**{"labels": own, output: logits})

        pool = self.heads.mask_roi_pool if name == "mask" else self.heads.keypoint_roi_pool
        return self._rois(pool, found, chosen.boxes, inside)

    def _linear_start(
        self, frames: Tensor, labels: Tensor, size: tuple[int, int]
    ) -> LinearStart | None:
        """Of torchvision's two-layer head; its outputs are computed as they are read."""
        head, predictor = self.heads.box_head, self.heads.box_predictor
        layers = (getattr(head, "fc6", None), getattr(head, "fc7", None))
        known = type(head) is TwoMLPHead and type(predictor) is FastRCNNPredictor
        if not known or any(type(each) is not nn.Linear for each in layers):
            return None
        side = self.heads.box_roi_pool.output_size

        def rest(hidden: Tensor, places: Tensor) -> Outputs:
            own, row = labels[places], torch.arange(len(places), device=places.device)
            seen = F.relu(head.fc7(F.relu(hidden, inplace=not torch.is_grad_enabled())))

            def logits() -> Tensor:
                found: Tensor = predictor.cls_score(seen)
                return found

            def boxes() -> Tensor:
                coded = predictor.bbox_pred(seen).unflatten(1, (-1, 4))[row, own]
                decoded = self.heads.box_coder.decode(coded, [frames[places]])[:, 0]
                clipped: Tensor = box_ops.clip_boxes_to_image(decoded, size)
                return clipped

            def scores() -> Tensor:
                return F.softmax(outputs["logits"], -1)[row, own]

            outputs = LazyOutputs({"logits": logits, "scores": scores, "boxes": boxes}, labels=own)
            return outputs

        weight = head.fc6.weight.unflatten(1, (-1, *side))
        return LinearStart(weight, head.fc6.bias, rest)

    def _rois(
        self,
        pool: Any,
        found: Found,
        frames: Tensor,
        head: Callable[[Tensor, Tensor], Outputs],
        pooled: Tensor | None = None,
        linear: LinearStart | None = None,
    ) -> RoIs:
        own = found.maps
        known = [name for name in self.names if name in pool.featmap_names]

        def pool_from(maps: Sequence[Tensor]) -> Tensor:
            result: Tensor = pool(dict(zip(self.names, maps, strict=True)), [frames], [found.size])
            return result

        def scale(level: int) -> float:
            factor: float = pool.scales[known.index(self.names[level])]
            return factor

        def matrices(places: Tensor, level: int) -> tuple[Tensor, Tensor]:
            height, width = own[level].shape[-2:]
            return pooling_matrices(
                frames[places], scale(level), (height, width), pool.output_size, pool.sampling_ratio
            )

        return RoIs(
            pooled=pool_from(own) if pooled is None else pooled,
            frames=frames,
            level=self._pool_levels(pool, frames),
            head_at=head,
            pool=pool_from,
            matrices=matrices,
            least=lambda level: 1 / scale(level),
            linear=linear,
        )

    def _objectness(self, found: Found, chosen: Entries) -> Cells:
        level = found.candidates.anchor_level[chosen.candidate]
        anchor = found.candidates.anchor[chosen.candidate]
        per_cell = self.rpn.anchor_generator.num_anchors_per_location()
        own_row, own_column, which = anchor_cells(anchor, level, per_cell, found.maps)
        modules = [self.rpn.head.conv, self.rpn.head.cls_logits]

        def read(
            outputs: Mapping[str, Tensor], places: Tensor, where: tuple[Tensor, Tensor, Tensor]
        ) -> Outputs:
            batch, row, column = where
            logits = outputs["objectness"][batch, which[places], row, column]
            return Outputs(labels=chosen.labels[places], objectness=logits)

        return Cells(
            level=level,
            row=own_row,
            column=own_column,
            convolve=lambda maps, _: {"objectness": self.rpn.head([maps])[0][0]},
            read=read,
            reach=lambda _: reach(modules),
            convolutions=lambda _: convolutions(modules),
        )

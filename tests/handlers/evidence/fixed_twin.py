"""The stock model's outputs for boxes it has found, from changed feature maps: the slow twin of
ablation with fixed candidates. One channel after the other, one box after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import FCOS
from torchvision.models.detection.ssd import SSD
from torchvision.ops.boxes import clip_boxes_to_image

from tests.handlers.whole_model_twin import WholeModelTwin

EDGES = ("x1", "y1", "x2", "y2")


class FixedTwin:
    """One picture through the stock model; then targets from any feature maps."""

    def __init__(self, model: Any, picture: Tensor) -> None:
        self.model = model
        self.whole = WholeModelTwin(model, picture)
        self.maps = [each.detach() for each in self.whole.maps]
        self.pixels = self.whole.calls["transform"][0][0].tensors.detach()

    @torch.no_grad()
    def scalar(self, place: int, target: str, maps: Sequence[Tensor]) -> float:
        """Of the stock model's detection at `place`."""
        logits, box = self._outputs(place, maps)
        label = int(self.whole.found["labels"][place])
        if target == "class":
            return float(logits[label])
        if target == "probability":
            scores = (
                logits.sigmoid() if hasattr(self.model, "topk_candidates") else logits.softmax(0)
            )
            return float((logits.softmax(0) if isinstance(self.model, SSD) else scores)[label])
        return float(box[EDGES.index(target)])

    def _outputs(self, place: int, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        candidate, label = self.whole.candidate(place), int(self.whole.found["labels"][place])
        size = self.whole.size
        if self.whole.two_stage:
            heads, own = self.model.roi_heads, self.whole._proposals()[candidate, None].detach()
            by_name = dict(zip(self.whole.names, maps, strict=True))
            pooled = heads.box_roi_pool(by_name, [own], [size])
            logits, coded = heads.box_predictor(heads.box_head(pooled))
            boxes = heads.box_coder.decode(coded, [own])
            return logits[0], clip_boxes_to_image(boxes, size)[0, label]
        found = self.model.head([*maps])
        anchor = self.whole.calls["anchor_generator"][0][0][candidate, None]
        coded = found["bbox_regression"][0, candidate, None]
        coder = self.model.box_coder
        box = coder.decode(coded, anchor) if isinstance(self.model, FCOS) else None
        box = coder.decode_single(coded, anchor) if box is None else box
        return found["cls_logits"][0, candidate], clip_boxes_to_image(box, size)[0]

    def without(self, level: int, channel: int) -> list[Tensor]:
        """The feature maps, but for a channel of one."""
        maps = [each.clone() for each in self.maps]
        maps[level][:, channel] = 0
        return maps

    @torch.no_grad()
    def without_in(self, module: str, channel: int) -> list[Tensor]:
        """The feature maps, were a channel of a module's last output zero."""
        with self._zeroing(module, channel):
            maps = self.model.backbone(self.pixels)
        return [*maps.values()] if isinstance(maps, dict) else [maps]

    @contextmanager
    def _zeroing(self, module: str, channel: int) -> Iterator[None]:
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        handle = self.model.get_submodule(module).register_forward_hook(count)
        self.model.backbone(self.pixels)
        handle.remove()
        left = calls

        def zero(_: Any, __: Any, output: Tensor) -> Tensor:
            nonlocal left
            left -= 1
            output = output.clone()
            if left == 0:
                output[:, channel] = 0
            return output

        handle = self.model.get_submodule(module).register_forward_hook(zero)
        try:
            yield
        finally:
            handle.remove()

"""Detectors that see every picture on a canvas of one size, and answer for each cell of a grid."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from handlers.detectors.base import Candidates, Features, Inputs
from handlers.detectors.dense import DenseDetector
from handlers.detectors.letterbox import NetworkInput, blank, letterboxed
from handlers.images import Geometry


class CanvasDetector(DenseDetector):
    """All but the network: a family brings `maps` and what DenseDetector and SuppressingDetector
    leave open, and says its `input` and `strides`.

    input: how a picture is put on the canvas. strides: pixels of the canvas to a cell, for each
    feature map, finest first. There is no background; a cell has one candidate, whose anchor is the
    cell itself.
    """

    input: NetworkInput
    strides: Sequence[int]
    background = False
    first_label = 0
    defaults: Mapping[str, Any] = {}
    no_gradient: Mapping[str, str] = {}
    no_backbone_gradient = ""

    def __init__(self, model: Any) -> None:
        self.model = model

    @abstractmethod
    def maps(self, tensors: Tensor) -> Sequence[Tensor]:
        """The feature maps of network input [B, 3, h, w], finest first."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((each.device for each in self.model.parameters()), torch.device("cpu"))

    def prepare(self, picture: Tensor) -> Inputs:
        return letterboxed(picture, self.input, self.device)

    def sample(self) -> Inputs:
        """A blank canvas."""
        return blank(self.input, self.device)

    def features(self, inputs: Inputs) -> Features:
        maps = self.maps(inputs.tensors)
        return Features(inputs, dict(zip(self.level_names(), maps, strict=True)))

    def propose(self, features: Features) -> list[Candidates]:
        maps = [*features.maps.values()]
        boxes = torch.cat(
            [
                cell_anchors(pairs, stride, (each.shape[-2], each.shape[-1]), each)
                for each, stride, pairs in zip(maps, self.strides, self.anchor_sizes(), strict=True)
            ]
        )
        return self.anchored([boxes] * len(features.inputs.sizes), maps)

    def anchor_sizes(self) -> Sequence[Sequence[Sequence[float]]]:
        """For each feature map (width, height) of its cells' anchors, in pixels of the canvas."""
        return [[(stride, stride)] for stride in self.strides]

    def per_cell(self) -> list[int]:
        return [len(each) for each in self.anchor_sizes()]

    def clip(self, boxes: Tensor, inputs: Inputs, picture: int = 0) -> Tensor:
        frame = inputs.geometries[picture].upright()
        whole = boxes.new_tensor([[0, 0, frame.picture_width, frame.picture_height]])
        x1, y1, x2, y2 = frame.boxes_on_frame(whole).unbind(-1)
        least, most = torch.stack([x1, y1, x1, y1], -1), torch.stack([x2, y2, x2, y2], -1)
        return torch.minimum(torch.maximum(boxes, least), most)

    def level_names(self) -> list[str]:
        return [f"stride{stride}" for stride in self.strides]

    def on_grid(self, frame: Geometry, height: int, width: int) -> Geometry:
        return frame.on_samples(height, width, self.strides)


def cell_anchors(
    sizes: Sequence[Sequence[float]], stride: int, grid: tuple[int, int], like: Tensor
) -> Tensor:
    """[h * w * A, 4]: boxes of the anchors' sizes (width, height) around the middles of the cells
    of a grid of (h, w)."""
    height, width = grid
    x = (torch.arange(width).to(like) + 0.5) * stride
    y = (torch.arange(height).to(like) + 0.5) * stride
    middles = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[:, :, None]
    half = torch.tensor(sizes).to(like) / 2
    return torch.cat([middles - half, middles + half], -1).reshape(-1, 4)

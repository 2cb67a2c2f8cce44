"""Small networks whose outputs are laid out as YOLO-like detectors' are, written for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)
WIDTH = 12


def _block(inputs: int, outputs: int, stride: int = 1, inplace: bool = True) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(inplace=inplace),
    )


class Trunk(nn.Module):
    """Maps of strides 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, 8, 2), _block(8, WIDTH, 2))
        self.down = nn.ModuleList([_block(WIDTH, WIDTH, 2) for _ in STRIDES])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps: list[Tensor] = []
        for down in self.down:
            x = down(x)
            maps.append(x)
        return maps


class Network(nn.Module):
    """A trunk and a head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.head = head

    def forward(self, x: Tensor) -> Any:
        return self.head(self.trunk(x))


class CoupledHead(nn.Module):
    """One convolution for all numbers of a cell, as YOLOv5's and YOLOv7's: raw maps of 5 axes when
    training, else decoded in place as well, as their code does."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.anchors = anchors
        self.m = nn.ModuleList([nn.Conv2d(WIDTH, channels * anchors, 1) for _ in STRIDES])

    def forward(self, maps: list[Tensor]) -> Any:
        flat = []
        for place, module in enumerate(self.m):
            x = module(maps[place])
            batch, _, height, width = x.shape
            maps[place] = x.view(batch, self.anchors, -1, height, width).permute(0, 1, 3, 4, 2)
            y = maps[place].sigmoid()
            y[..., :2] = y[..., :2] * 2 - 0.5
            flat.append(y.reshape(batch, -1, y.shape[-1]))
        return maps if self.training else (torch.cat(flat, 1), maps)


class DecoupledHead(nn.Module):
    """A branch of two 3 x 3 convolutions for each group of numbers.

    joined: as YOLOv8's head: maps of all groups when training, else one decoded tensor beside them,
    whose points are cached by the first map's size. Otherwise a tuple of lists, as RTMDet's.
    """

    def __init__(
        self, groups: Sequence[int], joined: bool = False, positive: int | None = None
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(_block(WIDTH, WIDTH), nn.Conv2d(WIDTH, channels, 3, padding=1))
                for _ in STRIDES
            )
            for channels in groups
        )
        self.joined, self.positive = joined, positive
        self.shape: torch.Size | None = None
        self.points = torch.empty(0)

    def forward(self, maps: list[Tensor]) -> Any:
        groups = [
            [module(x) for module, x in zip(branch.children(), maps, strict=True)]
            for branch in self.branches
        ]
        if self.positive is not None:
            groups[self.positive] = [
                each.exp() * stride
                for each, stride in zip(groups[self.positive], STRIDES, strict=True)
            ]
        if not self.joined:
            return tuple(groups)
        for place, several in enumerate(zip(*groups, strict=True)):
            maps[place] = torch.cat(several, 1)
        if self.training:
            return maps
        if self.shape != maps[0].shape:
            self.shape = maps[0].shape
            self.points = torch.rand(sum(each.shape[-2] * each.shape[-1] for each in maps))
        return torch.cat([each.flatten(2) for each in maps], 2).sigmoid() + self.points, maps


class SplitFlatHead(nn.Module):
    """YOLOv6's: when training its maps, classes through their sigmoid, and distances, in one tensor
    each; else one decoded tensor whose objectness is 1."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stems = nn.ModuleList([_block(WIDTH, WIDTH) for _ in STRIDES])
        self.classes = nn.ModuleList([nn.Conv2d(WIDTH, num_classes, 3, padding=1) for _ in STRIDES])
        self.boxes = nn.ModuleList([nn.Conv2d(WIDTH, 4, 3, padding=1) for _ in STRIDES])
        for name, parameter in self.boxes.named_parameters():
            if name.endswith("bias"):
                nn.init.constant_(parameter, 2.0)  # distances are hardly ever negative

    def forward(self, maps: list[Tensor]) -> Any:
        several = zip(self.stems, self.classes, self.boxes, strict=True)
        classes, boxes = [], []
        for place, (stem, classify, regress) in enumerate(several):
            maps[place] = stem(maps[place])
            classes.append(classify(maps[place]).sigmoid().flatten(2).permute(0, 2, 1))
            boxes.append(regress(maps[place]).flatten(2).permute(0, 2, 1))
        every = torch.cat(classes, 1), torch.cat(boxes, 1)
        if self.training:
            return maps, *every
        return torch.cat([every[1], torch.ones_like(every[0][..., :1]), every[0]], -1)


class FlatHead(nn.Module):
    """YOLOX's: one tensor of all candidates, scores through their sigmoid, boxes raw."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stems = nn.ModuleList([_block(WIDTH, WIDTH) for _ in STRIDES])
        self.predict = nn.ModuleList([nn.Conv2d(WIDTH, 5 + num_classes, 1) for _ in STRIDES])

    def forward(self, maps: list[Tensor]) -> Tensor:
        outputs = []
        for stem, predict, x in zip(self.stems, self.predict, maps, strict=True):
            y = predict(stem(x))
            outputs.append(torch.cat([y[:, :4], y[:, 4:].sigmoid()], 1).flatten(2))
        return torch.cat(outputs, 2).permute(0, 2, 1)


class DecodingHead(FlatHead):
    """Boxes decoded to pixels, all at once, by `edit`: "cat" (new tensors), "inplace" (slices of a
    sigmoid are overwritten) or "no_grad"."""

    edit: str = "cat"

    def forward(self, maps: list[Tensor]) -> Tensor:
        numbers = super().forward(maps)
        steps = [
            torch.full((x.shape[-2] * x.shape[-1], 1), float(stride))
            for x, stride in zip(maps, STRIDES, strict=True)
        ]
        cells = [
            torch.stack(
                torch.meshgrid(torch.arange(x.shape[-2]), torch.arange(x.shape[-1]), indexing="ij")[
                    ::-1
                ],
                -1,
            ).reshape(-1, 2)
            for x in maps
        ]
        step, cell = torch.cat(steps), torch.cat(cells)
        if self.edit == "inplace":
            values = torch.cat([numbers[..., :4].sigmoid(), numbers[..., 4:]], -1).exp()
            values[..., :2] = (values[..., :2] + cell) * step
            values[..., 2:4] = values[..., 2:4] ** 2 * step
            return torch.cat([values[..., :4], numbers[..., 4:]], -1)
        with torch.set_grad_enabled(self.edit != "no_grad" and torch.is_grad_enabled()):
            middles = (numbers[..., :2] + cell) * step
            sizes = numbers[..., 2:4].exp() * step
        return torch.cat([middles, sizes, numbers[..., 4:]], -1)

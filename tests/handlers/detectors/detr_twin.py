"""The same explanations from the stock model alone: its own processor, its own `forward` with its
graph, and plain autograd for one scalar at a time."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.handlers.slow_twin import FORMULAS

EDGES = ("x1", "y1", "x2", "y2")
SEVERAL = {"box": EDGES, "combined": ("class", *EDGES)}


class Affine(nn.Module):
    """A batch normalisation in eval mode, written out: torch's own gradient can be wrong."""

    def __init__(self, stock: nn.BatchNorm2d) -> None:
        super().__init__()
        assert stock.running_mean is not None
        assert stock.running_var is not None
        self.factor = stock.weight.detach() / (stock.running_var + stock.eps).sqrt()
        self.added = stock.bias.detach() - stock.running_mean * self.factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor[:, None, None] + self.added[:, None, None]


def with_plain_normalisation(model: Any) -> Any:
    """The same model, changed in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            model.set_submodule(name, Affine(module))
    return model


class DetrTwin:
    """One picture through the stock model, from the library's own processor on."""

    def __init__(self, model: Any, processor: Any, picture: Tensor, module: str = "") -> None:
        """module: the layer; without one what the encoder gives."""
        pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
        caught: list[Any] = []

        def hook(hooked: nn.Module, arguments: Any, keywords: Any, output: Any) -> Any:
            # Maps may be made of one another: what follows hangs from leaves of their own.
            if not isinstance(output, Tensor) and isinstance(output[0], list):
                output = type(output)([_leaf(each) for each in output[0]])
            caught.append((output if not isinstance(output, Tensor) else _leaf(output), keywords))
            return caught[-1][0]

        model = with_plain_normalisation(copy.deepcopy(model))
        model.set_attn_implementation("eager")  # no fused attention either
        layer = model.get_submodule(module or "model.encoder")
        layer.register_forward_hook(hook, with_kwargs=True)
        self.found = model(pixels.requires_grad_())
        (self.results,) = processor.post_process_object_detection(
            self.found, threshold=0.1, target_sizes=[tuple(picture.shape[-2:])]
        )
        self.softmax = model.config.model_type == "detr"
        self.size = (pixels.shape[-2], pixels.shape[-1])
        output, keywords = caught[0]
        self.leaves = [output]
        self.sizes: list[tuple[int, int]] = []
        if not module:
            self.leaves = output[0] if isinstance(output[0], list) else [output[0]]
            if "spatial_shapes_list" in keywords:
                self.sizes = keywords["spatial_shapes_list"]
            elif not isinstance(output[0], list):
                self.sizes = [tuple(-(-side // 32) for side in self.size)]

    def scalar(self, query: int, label: int, name: str) -> Tensor:
        """One of the targets that have a single scalar."""
        logits: Tensor = self.found.logits[0, query]
        if name == "class":
            return logits[label]
        if name == "probability":
            return (logits.softmax(-1) if self.softmax else logits.sigmoid())[label]
        x, y, width, height = self.found.pred_boxes[0, query]
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        place = EDGES.index(name)
        edge: Tensor = edges[place] * self.size[1 - place % 2]
        return edge

    def heatmap(self, query: int, label: int, target: str, method: str) -> tuple[Tensor, float]:
        """The map [h, w] on the finest grid, and its largest magnitude before it was cut."""
        totals = []
        for name in SEVERAL.get(target, (target,)):
            scalar = self.scalar(query, label, name)
            gradients = torch.autograd.grad(scalar, self.leaves, retain_graph=True)
            pairs = list(zip(self._maps(self.leaves), self._maps(gradients), strict=True))
            maps = [FORMULAS[method](each.detach()[0], gradient[0]) for each, gradient in pairs]
            totals.append(sum((_finer(each, maps[0].shape) for each in maps[1:]), maps[0]))
        total = torch.stack(totals)
        return total.amax(0).clamp(min=0), float(total.abs().max())

    def _maps(self, tensors: Any) -> list[Tensor]:
        """[1, C, h, w] each, of maps or of rows of cells."""
        if tensors[0].dim() == 4:
            return list(tensors)
        (rows,) = tensors
        maps, start = [], 0
        for height, width in self.sizes:
            cells = rows[:, start : start + height * width]
            maps.append(cells.reshape(1, height, width, -1).permute(0, 3, 1, 2))
            start += height * width
        return maps


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _finer(heatmap: Tensor, size: Any) -> Tensor:
    """A map on a finer grid: cell i of a map of stride s has its middle at input pixel i s."""
    values = heatmap.numpy()
    ratio = 2 ** np.ceil(np.log2(size[0] / values.shape[0]))
    across = np.arange(size[1]) / ratio
    values = np.stack([np.interp(across, np.arange(len(row)), row) for row in values])
    down = np.arange(size[0]) / ratio
    columns = [np.interp(down, np.arange(len(values)), column) for column in values.T]
    return torch.from_numpy(np.stack(columns, 1)).float()

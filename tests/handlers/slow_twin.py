"""The explanations again, the slow way: plain autograd through the whole model, a box at a time.

Nothing here uses the four verbs, the pooling matrices or the methods of handlers/; formulas are
written from the papers, on dense gradients of the whole feature map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops.boxes import clip_boxes_to_image

EDGES = ("x1", "y1", "x2", "y2")


class SlowTwin:
    """One picture through the whole model with its graph, to be differentiated box by box."""

    def __init__(self, model: Any, picture: Tensor) -> None:
        images, _ = model.transform([picture.float() / 255])
        size = images.image_sizes[0]
        heads = model.roi_heads
        self.pool = heads.box_roi_pool
        maps = model.backbone(images.tensors)
        self.features = {"0": maps} if isinstance(maps, Tensor) else maps
        self.proposals, _ = model.rpn(images, self.features)
        self.pooled = self.pool(self.features, self.proposals, images.image_sizes)
        self.logits, regression = heads.box_predictor(heads.box_head(self.pooled))
        self.boxes = clip_boxes_to_image(heads.box_coder.decode(regression, self.proposals), size)
        self.on_picture = resize_boxes(
            self.boxes.reshape(-1, 4), list(size), list(picture.shape[-2:])
        ).view_as(self.boxes)

    def heatmap(self, box: Tensor, label: int, method: str, target: str) -> tuple[str, Tensor]:
        """(level, heatmap [h, w]) of the best-scoring candidate with exactly this box."""
        candidate = self._candidate(box, label)
        level = _level(self.proposals[0][candidate], self.pool)
        activation = self.features[level]
        scalars = {
            "class": [self.logits[candidate, label]],
            "probability": [self.logits.softmax(-1)[candidate, label]],
            "box": list(self.boxes[candidate, label]),
            **{edge: [self.boxes[candidate, label, i]] for i, edge in enumerate(EDGES)},
        }[target]
        maps = []
        for scalar in scalars:
            (gradient,) = torch.autograd.grad(scalar, activation, retain_graph=True)
            maps.append(FORMULAS[method](activation[0].detach(), gradient[0]))
        return level, torch.stack(maps).amax(0).clamp(min=0)

    def roi_heatmap(self, box: Tensor, label: int) -> tuple[list[float], Tensor]:
        """(proposal in network input pixels, HiResCAM of the class on its pooled features)."""
        candidate = self._candidate(box, label)
        (gradient,) = torch.autograd.grad(
            self.logits[candidate, label], self.pooled, retain_graph=True
        )
        product = gradient[candidate] * self.pooled[candidate].detach()
        return self.proposals[0][candidate].tolist(), product.sum(0).clamp(min=0)

    def _candidate(self, box: Tensor, label: int) -> int:
        same = (self.on_picture[:, label] == box).all(-1)
        assert same.any()
        return int((self.logits.softmax(-1)[:, label] * same).argmax())


def _level(proposal: Tensor, pool: Any) -> str:
    """Equation 1 of the FPN paper (Lin et al. 2017): k = k0 + log2(sqrt(w h) / 224)."""
    x1, y1, x2, y2 = proposal.tolist()
    side = ((x2 - x1) * (y2 - y1)) ** 0.5
    level = int(np.floor(4 + np.log2(side / pool.canonical_scale) + 1e-6))
    finest = -int(np.log2(pool.scales[0]))
    coarsest = -int(np.log2(pool.scales[-1]))
    return str(pool.featmap_names[min(max(level, finest), coarsest) - finest])


def _weighted(weights: Tensor, activation: Tensor) -> Tensor:
    return (weights[:, None, None] * activation).sum(0)


def _gradcam(activation: Tensor, g: Tensor) -> Tensor:
    return _weighted(g.mean((1, 2)), activation)


def _gradcam_plus_plus_weights(activation: Tensor, g: Tensor) -> Tensor:
    total = activation.relu().sum((1, 2), keepdim=True).double()
    g = g.double()
    alpha = g**2 / (2 * g**2 + total * g**3)
    return torch.where(g > 0, alpha * g, 0.0).sum((1, 2)).float()


def _ssgradcam(weights: Tensor, activation: Tensor, g: Tensor) -> Tensor:
    """Channel by channel, as the paper defines the space map."""
    total = torch.zeros(activation.shape[1:])
    for weight, values, own in zip(weights, activation, g, strict=True):
        if own.abs().max() > 0:
            total += weight * values * own.abs() / own.abs().max()
    return total


def _gcame(activation: Tensor, g: Tensor) -> Tensor:
    height, width = activation.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    total = torch.zeros(height, width)
    for values, own in zip(activation, g, strict=True):
        strength = own.abs()
        if strength.sum() > 0:
            peak = torch.nonzero(strength >= 0.999 * strength.max()).float().mean(0)
            top, left = peak.tolist()
            away = (y - top) ** 2 + (x - left) ** 2
            variance = max(0.25, float((strength * away).sum() / strength.sum() / 2))
            total += own.mean() * values * torch.exp(-away / (2 * variance))
    return total * (g != 0).any(0)


def _xgradcam(activation: Tensor, g: Tensor) -> Tensor:
    total = activation.abs().sum((1, 2)).clamp(min=1e-30)
    return _weighted((g * activation).sum((1, 2)) / total, activation)


def _principal(values: Tensor) -> Tensor:
    channels, height, width = values.shape
    cells = values.reshape(channels, -1).T.double().numpy()
    centred = cells - cells.mean(0)
    projection = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    if projection @ (cells.sum(1) - cells.sum() / len(cells)) < 0:
        projection = -projection
    return torch.from_numpy(projection).float().view(height, width)


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": _gradcam,
    "gradcam++": lambda activation, g: _weighted(
        _gradcam_plus_plus_weights(activation, g), activation
    ),
    "ssgradcam": lambda activation, g: _ssgradcam(g.mean((1, 2)), activation, g),
    "ssgradcam++": lambda activation, g: _ssgradcam(
        _gradcam_plus_plus_weights(activation, g), activation, g
    ),
    "gcame": _gcame,
    "xgradcam": _xgradcam,
    "hirescam": lambda activation, g: (g * activation).sum(0),
    "odam": lambda activation, g: (g * activation).sum(0),
    "layercam": lambda activation, g: (g.relu() * activation).sum(0),
    "eigencam": lambda activation, _: _principal(activation),
    "eigengradcam": lambda activation, g: _principal(g * activation),
}

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


def slow_heatmap(
    model: Any, picture: Tensor, box: Tensor, label: int, method: str, target: str
) -> tuple[str, Tensor]:
    """(level, heatmap [h, w]) of the detection with exactly this box and label."""
    images, _ = model.transform([picture.float() / 255])
    features = model.backbone(images.tensors)
    proposals, _ = model.rpn(images, features)
    heads = model.roi_heads
    pooled = heads.box_roi_pool(features, proposals, images.image_sizes)
    logits, regression = heads.box_predictor(heads.box_head(pooled))
    boxes = heads.box_coder.decode(regression, proposals)
    boxes = clip_boxes_to_image(boxes, images.image_sizes[0])
    flat = resize_boxes(
        boxes.reshape(-1, 4), list(images.image_sizes[0]), list(picture.shape[-2:])
    ).view_as(boxes)
    (candidate,) = torch.where((flat[:, label] == box).all(-1))[0][:1].tolist()
    level = _level(proposals[0][candidate], heads.box_roi_pool)
    activation = features[level]
    scalars = {
        "class": [logits[candidate, label]],
        "probability": [logits.softmax(-1)[candidate, label]],
        "box": list(boxes[candidate, label]),
        **{edge: [boxes[candidate, label, i]] for i, edge in enumerate(EDGES)},
    }[target]
    maps = []
    for scalar in scalars:
        (gradient,) = torch.autograd.grad(scalar, activation, retain_graph=True)
        maps.append(FORMULAS[method](activation[0].detach(), gradient[0]))
    return level, torch.stack(maps).amax(0).clamp(min=0)


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


def _gradcam_plus_plus(activation: Tensor, g: Tensor) -> Tensor:
    total = activation.relu().sum((1, 2), keepdim=True).double()
    g = g.double()
    alpha = g**2 / (2 * g**2 + total * g**3)
    weights = torch.where(g > 0, alpha * g, 0.0).sum((1, 2))
    return _weighted(weights.float(), activation)


def _xgradcam(activation: Tensor, g: Tensor) -> Tensor:
    total = activation.abs().sum((1, 2)).clamp(min=1e-30)
    return _weighted((g * activation).sum((1, 2)) / total, activation)


def _principal(values: Tensor, _: Tensor | None = None) -> Tensor:
    channels, height, width = values.shape
    cells = values.reshape(channels, -1).T.double().numpy()
    centred = cells - cells.mean(0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    projection = centred @ components[0]
    if projection @ (cells.sum(1) - cells.sum() / len(cells)) < 0:
        projection = -projection
    return torch.from_numpy(projection).float().view(height, width)


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus_plus,
    "xgradcam": _xgradcam,
    "hirescam": lambda activation, g: (g * activation).sum(0),
    "odam": lambda activation, g: (g * activation).sum(0),
    "layercam": lambda activation, g: (g.relu() * activation).sum(0),
    "eigencam": _principal,
    "eigengradcam": lambda activation, g: _principal(g * activation),
}

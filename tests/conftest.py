"""What tests of several rooms share: small detectors and pictures, made once."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from handlers.detectors.registry import build_model
from handlers.explainer import Explainer

# 96 px keep a ResNet-50 quick; a threshold of zero makes random weights detect plenty.
SMALL = {
    "min_size": 96,
    "max_size": 160,
    "rpn_post_nms_top_n_test": 100,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 12,
}
CATEGORIES = ("__background__", "cat", "dog", "bird", "fish")


@functools.cache
def small_model(architecture: str) -> nn.Module:
    """An architecture with random weights whose scores and boxes are spread out."""
    torch.manual_seed(7)
    model = build_model(architecture, len(CATEGORIES), SMALL)
    with torch.no_grad():
        predictor = model.get_submodule("roi_heads.box_predictor")
        for name, parameter in predictor.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(30)
    return model


def random_picture(height: int, width: int, seed: int = 0) -> Tensor:
    """A picture of soft blobs, uint8 [3, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    noise = 0.1 * torch.rand(3, height, width, generator=generator)
    return ((smooth + noise).clamp(0, 1) * 255).to(torch.uint8)


@pytest.fixture(scope="session")
def explainer() -> Explainer:
    return Explainer.from_model(small_model("fasterrcnn_mobilenet_v3_large_320_fpn"), CATEGORIES)

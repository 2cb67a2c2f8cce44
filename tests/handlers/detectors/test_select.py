"""`detect` is the stock model bit for bit: boxes, labels, scores and their order."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, resnet18
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import (
    mobilenet_backbone,
    resnet_fpn_backbone,
)
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from tests.conftest import (
    CATEGORIES,
    DETECTORS,
    RPN_SPREADS,
    SPREADS,
    calibrated,
    random_picture,
    spread_out,
)

CLASSES = len(CATEGORIES)
TWO = [random_picture(160, 224, seed) / 255 for seed in (50, 51)]
SIZES = [(240, 320), (333, 200), (150, 420)]


def check(model: nn.Module, pictures: list[Tensor], least: int = 1) -> None:
    """Every picture alone, with at least so many detections."""
    explainer = Explainer.from_model(model, CATEGORIES)
    for picture in pictures:
        with torch.no_grad():
            stock = model([picture.float() / 255])[0]
        ours = explainer.detect([picture])[0]
        assert len(ours) >= least
        for name in ("boxes", "labels", "scores"):
            assert torch.equal(getattr(ours, name), stock[name]), name


def limits(model: Any, **values: float) -> None:
    """Sets score_thresh, nms_thresh, detections_per_img where the model keeps them."""
    for name, value in values.items():
        setattr(getattr(model, "roi_heads", model), name, value)


def build(architecture: str, side: int) -> nn.Module:
    options: dict[str, Any] = {"min_size": side, "max_size": side * 3 // 2}
    if "rcnn" in architecture:
        options |= {"rpn_post_nms_top_n_test": 120}
    if "mask" in architecture or "keypoint" in architecture:
        options |= {"box_detections_per_img": 6}  # what is drawn inside the boxes takes its time
    model = build_model(architecture, CLASSES, {} if "ssd" in architecture else options)
    limits(model, score_thresh=0.0)
    return model


@functools.lru_cache(maxsize=1)
def spread(architecture: str) -> nn.Module:
    torch.manual_seed(1)
    model = build(architecture, 320)
    spread_out(model, TWO)
    return model


# What differs from Faster R-CNN's plain heads comes after its boxes are chosen.
SAME_BOXES = "maskrcnn|keypointrcnn|fasterrcnn_resnet50_fpn_v2"


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(name, marks=pytest.mark.full) if re.match(SAME_BOXES, name) else name
        for name in DETECTORS
    ],
)
def test_every_architecture(architecture: str) -> None:
    model: Any = spread(architecture)
    most = getattr(model, "roi_heads", model).detections_per_img
    limits(model, score_thresh=0.0)
    check(model, [random_picture(*SIZES[0])], least=min(most, 60))
    limits(model, score_thresh=0.3)
    check(model, [random_picture(*SIZES[1])], least=2)


@pytest.mark.full
@pytest.mark.parametrize("architecture", DETECTORS)
@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("suppression", [0.3, 0.7])
def test_every_architecture_at_other_limits(
    architecture: str, threshold: float, suppression: float
) -> None:
    model: Any = spread(architecture)
    before = getattr(model, "roi_heads", model).nms_thresh
    limits(model, score_thresh=threshold, nms_thresh=suppression)
    try:
        check(model, [random_picture(*size, seed=seed) for size in SIZES for seed in range(3)])
    finally:
        limits(model, nms_thresh=before)


@pytest.mark.parametrize(
    "architecture",
    [
        name if re.search("small|mobilenet", name) else pytest.param(name, marks=pytest.mark.full)
        for name in DETECTORS
    ],
)
def test_tied_scores(architecture: str) -> None:
    """Weights of zero give every candidate the same score; only the order of ties decides."""
    torch.manual_seed(2)
    model = build(architecture, 128)
    spread_out(model, TWO)
    for name, parameter in model.named_parameters():
        if ("cls" in name or "classification_head" in name) and "weight" in name:
            nn.init.zeros_(parameter)
        elif "rpn.head.cls_logits" not in name and ("cls_score" in name or "cls_logits" in name):
            nn.init.constant_(parameter, 0.25)
    check(model, [random_picture(*SIZES[1], seed=3)], least=6)


def pyramid(**options: Any) -> nn.Module:
    backbone: nn.Module = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, **options
    )
    return backbone


def mobilenet() -> nn.Module:
    trunk: nn.Module = mobilenet_v3_large(weights=None, norm_layer=nn.BatchNorm2d).features
    trunk.out_channels = 960  # type: ignore[assignment]
    return trunk


class Steps(nn.Module):
    """A backbone of a user's own, with two maps and names of their own."""

    def __init__(self) -> None:
        super().__init__()
        trunk = resnet18(weights=None)
        self.fine = nn.Sequential(*list(trunk.children())[:6])
        self.coarse = trunk.layer3
        self.out_channels = [128, 256]

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        fine = self.fine(pictures)
        return {"fine": fine, "coarse": self.coarse(fine)}


def ssd() -> nn.Module:
    boxes = DefaultBoxGenerator([[2], [2, 3]], min_ratio=20, max_ratio=80)
    limits = {"score_thresh": 0.0, "topk_candidates": 70}
    model: nn.Module = SSD(Steps(), boxes, (160, 224), CLASSES, **limits)
    return model


def two_stage(backbone: nn.Module, **options: Any) -> nn.Module:
    options |= {"min_size": 160, "box_score_thresh": 0.0, "rpn_post_nms_top_n_test": 200}
    model: nn.Module = FasterRCNN(backbone, CLASSES, **options)
    return model


def one_stage(kind: Any, backbone: nn.Module, **options: Any) -> nn.Module:
    model: nn.Module = kind(backbone, CLASSES, min_size=160, score_thresh=0.0, **options)
    return model


ONE_MAP = AnchorGenerator(((16, 32, 64),), ((0.5, 1.0, 2.0),))
EVERY = [0.5, 1.0, 2.0]
USERS: dict[str, Callable[[], nn.Module]] = {
    "faster-resnet18": lambda: two_stage(pyramid(trainable_layers=5)),
    "faster-three-maps": lambda: two_stage(
        pyramid(trainable_layers=5, returned_layers=[2, 3]),
        rpn_anchor_generator=AnchorGenerator(((32,), (64,), (128,)), (tuple(EVERY),) * 3),
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 5, 0, canonical_scale=64),
    ),
    "faster-mobilenet": lambda: two_stage(
        mobilenet_backbone(
            backbone_name="mobilenet_v3_small",
            weights=None,
            fpn=True,
            norm_layer=nn.BatchNorm2d,
            trainable_layers=6,
        ),
        rpn_anchor_generator=AnchorGenerator(((32, 64),) * 3, (tuple(EVERY),) * 3),
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 7, 2),
    ),
    "faster-one-map": lambda: two_stage(
        mobilenet(), rpn_anchor_generator=ONE_MAP, box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2)
    ),
    "retinanet-resnet18": lambda: one_stage(
        RetinaNet,
        pyramid(
            trainable_layers=5,
            returned_layers=[2, 3, 4],
            extra_blocks=LastLevelP6P7(256, 256),
        ),
        topk_candidates=60,
    ),
    "retinanet-one-map": lambda: one_stage(RetinaNet, mobilenet(), anchor_generator=ONE_MAP),
    "retinanet-duplicated-anchors": lambda: one_stage(
        RetinaNet, mobilenet(), anchor_generator=AnchorGenerator(((32, 32),), ((1.0, 1.0, 2.0),))
    ),
    "fcos-resnet18": lambda: one_stage(
        FCOS,
        pyramid(
            trainable_layers=5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
        ),
    ),
    "ssd-two-maps": ssd,
}


@pytest.mark.parametrize("name", sorted(USERS))
def test_models_that_users_built(name: str) -> None:
    torch.manual_seed(3)
    model = USERS[name]().eval()
    calibrated(model.get_submodule("backbone"), torch.stack(TWO))
    spread_out(model.eval(), TWO, RPN_SPREADS | SPREADS)
    check(model, [random_picture(*size, seed=4) for size in SIZES], least=20)

from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from handlers.detectors.registry import architectures
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from tests.conftest import CATEGORIES, random_picture, small_model


@pytest.mark.parametrize("architecture", architectures())
@pytest.mark.parametrize("size", [(120, 200), (97, 64)])
def test_select_is_exactly_the_stock_model(architecture: str, size: tuple[int, int]) -> None:
    model = small_model(architecture)
    picture = random_picture(*size, seed=size[0])
    with torch.no_grad():
        stock = model([picture.float() / 255])[0]
    ours = Explainer.from_model(model, CATEGORIES).detect([picture])[0]
    assert len(ours) == 12
    for name in ("boxes", "labels", "scores"):
        assert torch.equal(getattr(ours, name), stock[name]), name


def test_without_a_pyramid() -> None:
    torch.manual_seed(0)
    trunk = torch.nn.Sequential(*list(resnet18(weights=None).children())[:-3])
    trunk.out_channels = 256  # type: ignore[assignment]
    model = FasterRCNN(
        trunk,
        num_classes=len(CATEGORIES),
        min_size=96,
        box_score_thresh=0.0,
        box_detections_per_img=5,
        rpn_anchor_generator=AnchorGenerator(((16, 32, 64),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
    ).eval()
    picture = random_picture(110, 130)
    with torch.no_grad():
        stock = model([picture.float() / 255])[0]
    explainer = Explainer.from_model(model, CATEGORIES)
    assert torch.equal(explainer.detect([picture])[0].boxes, stock["boxes"])
    explanations = explainer.explain([picture], ExplainRequest(score_threshold=0.0))[0]
    assert {(each.level, tuple(each.heatmap.shape)) for each in explanations} == {("0", (6, 8))}


def test_a_narrow_first_picture_does_not_mislead_the_strides() -> None:
    # MultiScaleRoIAlign infers its strides from the first picture that it sees, and keeps them.
    model = small_model("fasterrcnn_regnet_small_fpn")
    model.get_submodule("roi_heads.box_roi_pool").scales = None  # type: ignore[assignment]
    explainer = Explainer.from_model(model, CATEGORIES)
    explainer.detect([random_picture(4, 60)])
    scales = model.get_submodule("roi_heads.box_roi_pool").scales
    assert scales == [0.25, 0.125, 0.0625, 0.03125]

from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN, maskrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from handlers.detectors.faster_rcnn import FasterRCNNDetector
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from handlers.images import Geometry
from handlers.schema import ExplainRequest
from tests.conftest import CATEGORIES, DETECTORS, random_picture, scene_picture, small_model


@pytest.mark.parametrize(
    "architecture", [name for name in DETECTORS if name.startswith("fasterrcnn")]
)
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


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # The shorter side becomes 96, the frame is padded to multiples of 32.
        ((50, 75), Geometry(75, 50, 160.0, 96.0, 144 / 75, 96 / 50)),
        ((90, 60), Geometry(60, 90, 96.0, 160.0, 96 / 60, 144 / 90)),
        # The longer side stops at 160.
        ((40, 160), Geometry(160, 40, 160.0, 64.0, 1.0, 1.0)),
    ],
)
def test_geometry_by_hand(size: tuple[int, int], expected: Geometry) -> None:
    detector = FasterRCNNDetector(small_model("fasterrcnn_mobilenet_v3_large_320_fpn"))
    assert detector.prepare(random_picture(*size)).geometries == [expected]


def test_trained_weights_at_their_own_thresholds(demo: Explainer) -> None:
    for number in range(6):
        picture = scene_picture(number)
        with torch.no_grad():
            stock = demo.detector.model([picture / 255])[0]
        ours = demo.detect([picture])[0]
        for name in ("boxes", "labels", "scores"):
            assert torch.equal(getattr(ours, name), stock[name])


def test_no_proposals_at_all() -> None:
    model = build_model("fasterrcnn_regnet_small_fpn", 3, {"rpn_score_thresh": 1.1})
    explainer = Explainer.from_model(model, ["background", "cat", "dog"])
    assert [len(each) for each in explainer.detect([random_picture(64, 64)] * 2)] == [0, 0]
    assert explainer.explain([random_picture(64, 64)], ExplainRequest(score_threshold=0)) == [[]]


def test_maps_that_the_pool_names_but_the_backbone_lacks_are_passed_over() -> None:
    model = build_model("fasterrcnn_regnet_small_fpn", 3)
    model.get_submodule("roi_heads.box_roi_pool").featmap_names = ["x", "1", "2"]  # type: ignore
    detector = FasterRCNNDetector(model)
    features = detector.features(detector.prepare(random_picture(64, 64)))
    levels = detector.propose(features)[0].level
    assert {detector.level_names()[level] for level in levels.tolist()} <= {"1", "2"}


def test_mask_rcnn_has_the_boxes_of_a_faster_rcnn() -> None:
    torch.manual_seed(0)
    options = {"min_size": 64, "max_size": 96, "box_score_thresh": 0.0, "num_classes": 3}
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, **options).eval()
    picture = random_picture(64, 80)
    with torch.no_grad():
        stock = model([picture / 255])[0]
    ours = Explainer.from_model(model, ["background", "cat", "dog"]).detect([picture])[0]
    assert torch.equal(ours.boxes, stock["boxes"])
    assert len(ours) > 0

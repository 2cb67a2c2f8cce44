"""What a request may ask of one picture, and how it is refused or answered at the edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from handlers.explainer import Explainer
from handlers.schema import ExplainRequest, RequestError
from handlers.tap import NonFiniteError
from handlers.targets.registry import Outputs
from tests.conftest import CATEGORIES, random_picture, small_model

PICTURE = random_picture(100, 130, seed=2)
ALL = ExplainRequest(score_threshold=0.0, max_detections=3)


def explainer_of(architecture: str) -> Explainer:
    return Explainer.from_model(small_model(architecture), CATEGORIES)


def test_box_score_of_boxes_that_are_not_the_first(explainer: Explainer) -> None:
    labels = explainer.detect([PICTURE])[0].labels.tolist()
    category = CATEGORIES[next(label for label in labels if label != labels[0])]
    request = replace(ALL, target="box_score", category=category)
    found = explainer.explain([PICTURE], request)[0]
    assert [each.category for each in found] == [category]
    assert float(found[0].heatmap.max()) > 0


@pytest.mark.parametrize("fields", [{"candidates": 5}, {"box": (1.0, 1.0, 30.0, 30.0)}])
def test_no_candidates_give_an_empty_list(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = explainer_of("fasterrcnn_regnet_small_fpn")
    monkeypatch.setattr(explainer.detector.model.get_submodule("rpn"), "score_thresh", 1.1)
    assert explainer.explain([PICTURE], replace(ALL, **fields)) == [[]]
    request = replace(ALL, target="objectness", layer="rpn.head.conv")
    assert explainer.explain([PICTURE], request) == [[]]


def constant(outputs: Outputs) -> Tensor:
    return torch.zeros(())


@pytest.mark.parametrize(
    ("target", "layer"),
    [
        ("class", "head.classification_head.module_list.0.0"),
        (constant, "head.classification_head.module_list.2.0"),
    ],
)
def test_what_does_not_reach_a_layer_has_a_map_of_zeros(target: Any, layer: str) -> None:
    explainer = explainer_of("ssdlite320_mobilenet_v3_large")
    request = replace(ALL, target=target, layer=layer, max_detections=1, sum_boxes=True)
    (found,) = explainer.explain([PICTURE], request)[0]
    assert found.level != "0"
    assert not found.heatmap.any()


@pytest.mark.parametrize(
    ("architecture", "place", "target", "named"),
    [
        ("maskrcnn_resnet50_fpn", "roi_heads.mask_head.0.0.weight", "mask", "mask_head.0.0"),
        ("fasterrcnn_regnet_small_fpn", "rpn.head.cls_logits.bias", "class", "rpn.head.cls_logits"),
        ("fcos_resnet50_fpn", "head.regression_head.bbox_ctrness.bias", "class", "bbox_ctrness"),
    ],
)
def test_what_is_not_finite_is_named_wherever_it_is(
    architecture: str, place: str, target: str, named: str
) -> None:
    explainer = explainer_of(architecture)
    weight = explainer.detector.model.get_parameter(place)
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(torch.nan if weight.dim() == 1 else 3e38)  # which overflows
        with pytest.raises(NonFiniteError, match=named):
            explainer.explain([PICTURE], replace(ALL, target=target))
    finally:
        with torch.no_grad():
            weight.copy_(before)


def test_a_function_that_gives_nan_is_refused(explainer: Explainer) -> None:
    request = replace(ALL, target=lambda outputs: (outputs["scores"] - 2).sqrt())
    with pytest.raises(RequestError, match=r"target: .* allowed: finite"):
        explainer.explain([PICTURE], request)


FREE = "eigencam, scorecam, since no gradient leads"


@pytest.mark.parametrize(
    ("architecture", "part", "methods"),
    [
        (
            "fasterrcnn_regnet_small_fpn",
            "roi_heads.box_head",
            ["odam", "gradcam", "fullgrad", "guided", "guidedgradcam"],
        ),
        # Their heads' gradients are made without the modules.
        ("retinanet_resnet50_fpn", "head.classification_head.conv.0", ["fullgrad", "guided"]),
        ("fcos_resnet50_fpn", "head.classification_head.conv.0", ["fullgrad", "guided"]),
    ],
)
def test_a_network_without_gradients_is_no_empty_map(
    architecture: str, part: str, methods: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = explainer_of(architecture)
    module = explainer.detector.model.get_submodule(part)
    monkeypatch.setattr(module, "forward", torch.no_grad()(module.forward))
    for method in methods:
        with pytest.raises(RequestError, match=f"method: got '{method}'; allowed: .*{FREE}"):
            explainer.explain([PICTURE], replace(ALL, method=method))
        with pytest.raises(RequestError, match=FREE):
            explainer.explain([PICTURE], replace(ALL, method=method, sum_boxes=True))
    assert explainer.explain([PICTURE], replace(ALL, method="eigencam"))[0][0].heatmap.any()


@pytest.mark.parametrize("sums", [False, True])
@pytest.mark.parametrize("target", [constant, lambda outputs: outputs["scores"].detach()])
def test_a_target_without_gradients_is_no_empty_map(
    explainer: Explainer, target: Any, sums: bool
) -> None:
    request = replace(ALL, target=target, sum_boxes=sums)
    with pytest.raises(RequestError, match="the target is detached"):
        explainer.explain([PICTURE], request)


def test_a_function_may_read_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = explainer_of("maskrcnn_resnet50_fpn")

    def both(outputs: Outputs) -> Tensor:
        return outputs["objectness"] + 0 * outputs["mask_logits"].mean((1, 2))

    named = explainer.explain([PICTURE], replace(ALL, target="objectness", layer="pyramid"))[0]
    found = explainer.explain([PICTURE], replace(ALL, target=both, layer="pyramid"))[0]
    for one, other in zip(found, named, strict=True):
        assert torch.allclose(one.heatmap, other.heatmap, atol=1e-4 * float(other.heatmap.max()))
    with pytest.raises(RequestError, match="allowed: labels, logits, scores, boxes, objectness"):
        explainer.explain([PICTURE], replace(ALL, target=lambda outputs: outputs["centerness"]))


def test_a_saturated_class_leaves_the_probability_a_gradient() -> None:
    explainer = explainer_of("fcos_resnet50_fpn")
    bias = explainer.detector.model.get_parameter("head.classification_head.cls_logits.bias")
    before = bias.detach().clone()
    try:
        with torch.no_grad():
            bias[2] = -200.0
        found = explainer.explain([PICTURE], replace(ALL, target="probability"))[0]
        assert all(float(each.heatmap.max()) > 0 for each in found)
        nothing = replace(ALL, target="probability", candidates=3, category=CATEGORIES[2])
        assert not any(each.heatmap.any() for each in explainer.explain([PICTURE], nothing)[0])
    finally:
        with torch.no_grad():
            bias.copy_(before)


def test_label_zero_is_a_category_where_it_is_reported() -> None:
    explainer = explainer_of("fcos_resnet50_fpn")
    (best,) = explainer.explain([PICTURE], replace(ALL, max_detections=1))[0]
    (first,) = explainer.explain([PICTURE], replace(ALL, candidates=1))[0]
    assert (first.label, first.box, first.outcome) == (best.label, best.box, "reported as box 0")


def test_a_sum_over_several_maps_adds_them_on_the_finest() -> None:
    explainer = explainer_of("ssdlite320_mobilenet_v3_large")
    request = replace(ALL, max_detections=6)
    each = explainer.explain([PICTURE], replace(request, save_raw=True))[0]
    (found,) = explainer.explain([PICTURE], replace(request, sum_boxes=True))[0]
    assert len({one.level for one in each}) > 2
    assert found.together == tuple(range(6))
    height, width = found.heatmap.shape
    assert found.heatmap.numel() == max(one.heatmap.numel() for one in each)
    total = torch.zeros(height, width)
    for one in each:
        assert one.activation is not None
        assert one.gradient is not None
        signed = (one.activation * one.gradient).sum(0)
        total += one.geometry.onto(signed, found.geometry, height, width)
    assert torch.allclose(found.heatmap, total.clamp(min=0), atol=1e-4 * float(total.abs().max()))


def test_fused_maps_keep_what_lies_outside_a_box() -> None:
    explainer = explainer_of("maskrcnn_resnet50_fpn")
    request = replace(ALL, target="mask", layer="emitting,roi", fuse=True, method="gradcam")
    for each in explainer.explain([PICTURE], request)[0]:
        assert not each.geometry.clipped


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"box": (-1e308, 0, 1, 1)}, "four numbers"),
        ({"box": (float("nan"), 0, 1, 1)}, "four numbers"),
        ({"box": (5.0, 0, 1, 1)}, "x1 < x2"),
        ({"fuse": True, "save_raw": True}, "fused maps have no gradient"),
        ({"shared": True}, "center_prior above 0"),
        ({"shared": True, "center_prior": 0.3, "sum_boxes": True}, "false with sum_boxes"),
        ({"center_prior": -0.1}, "center_prior: .* a number from 0 to 1"),
        ({"target": None}, "a non-empty string or a function"),
        ({"layer": ["emitting"]}, "layer: .* a non-empty string"),
        ({"method": None}, "method: .* a non-empty string"),
        ({"candidates": -1}, "an integer from 0"),
        ({"box": (0.0, 0.0, 1.0, 1.0), "candidates": 3}, "0 where a box is named"),
    ],
)
def test_requests_that_make_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ExplainRequest(**fields)


def test_a_keypoint_that_the_detector_lacks_is_refused_at_once() -> None:
    with pytest.raises(RequestError, match=r"keypoint:0 \.\.\. 16"):
        explainer_of("keypointrcnn_resnet50_fpn").check(ExplainRequest(target="keypoint:50"))

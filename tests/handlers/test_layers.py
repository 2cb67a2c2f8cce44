from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from handlers.explainer import Explainer
from handlers.layers import STAGES, find_stage
from handlers.schema import ExplainRequest, RequestError
from tests.conftest import CATEGORIES, random_picture, small_model
from tests.handlers.detectors.tiny_transformers import CATEGORIES as TINY_CATEGORIES
from tests.handlers.detectors.tiny_transformers import tiny_model

PICTURE = random_picture(120, 160)
CONV = "backbone.body.block2.block2-0.proj.0"


def test_survey_names_parts_shapes_and_targets(explainer: Explainer) -> None:
    layers = {each.name: each for each in explainer.survey(PICTURE)}
    assert list(layers) == [name for name, _ in explainer.detector.model.named_modules() if name]
    # 192 x 256 pixels at stride 8.
    assert (layers[CONV].kind, layers[CONV].shape) == ("Conv2d", (1, 64, 24, 32))
    assert layers[CONV].part == "backbone"
    assert layers[CONV].explains("class")
    assert layers[CONV].explains("objectness")
    assert layers["rpn.head.conv"].targets == {"objectness"}
    assert layers["roi_heads.box_head.fc6"].targets >= {"class", "x1", "combined"}
    assert not layers["roi_heads.box_head.fc6"].explained  # [N, 256] is no map
    assert layers["roi_heads.box_predictor.bbox_pred"].targets.isdisjoint({"class", "probability"})
    assert layers["backbone"].shape is None  # a dictionary of maps
    assert not any(module._forward_hooks for module in explainer.detector.model.modules())


@pytest.mark.parametrize(
    ("layer", "target", "message"),
    [
        ("backbone.bdy.stem", "class", "got 'backbone.bdy.stem'; .* backbone.body.stem"),
        ("backbone.body", "class", "no single map'; .* backbone.body.stem"),
        ("roi_heads.box_head.fc6", "class", r"fc6, which gives \[\d+, 256\]"),
        ("rpn.head.conv", "class", "rpn.head.conv, which has no part in the target class"),
        ("roi", "objectness", "allowed: emitting, pyramid, or a module's name"),
        ("C2,roj", "class", "got 'roj'; allowed: emitting, roi, pyramid, C2, C3, C4, C5, "),
        ("emitting,roj", "class", "got 'roj'; allowed: emitting, roi, pyramid"),
        ("", "class", "got ''"),
        ("head.foo", "class", "allowed: emitting, roi, pyramid, "),
    ],
)
def test_refused_layers_name_near_ones(
    explainer: Explainer, layer: str, target: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        explainer.check(ExplainRequest(layer=layer or " ", target=target))


def test_preview_marks_what_can_be_explained(explainer: Explainer) -> None:
    lines = explainer.preview("objectness", PICTURE).splitlines()
    marked = [line.split()[1] for line in lines if line.startswith("*")]
    assert {"conv", "cls_logits"} <= set(marked)
    assert "fc6" not in marked
    (stem,) = (line for line in lines if "SimpleStemIN" in line)
    assert stem.startswith("*")
    assert stem.endswith("1 x 32 x 96 x 128")


def test_several_layers_and_their_fusion(explainer: Explainer) -> None:
    layers = f"{CONV},emitting,roi"
    request = ExplainRequest(layer=layers, score_threshold=0, max_detections=2)
    found = explainer.explain([PICTURE], request)[0]
    assert [(each.index, each.layer) for each in found] == [
        (index, layer) for index in (0, 1) for layer in layers.split(",")
    ]
    alone = ExplainRequest(layer=CONV, score_threshold=0, max_detections=2)
    for one, other in zip(found[::3], explainer.explain([PICTURE], alone)[0], strict=True):
        assert torch.equal(one.heatmap, other.heatmap)


def test_fused_maps_are_the_mean_of_normalised_ones(explainer: Explainer) -> None:
    layers = f"{CONV},{CONV.removesuffix('0')}1"  # the convolution and its normalisation
    request = ExplainRequest(layer=layers, score_threshold=0, max_detections=1, method="gradcam")
    one, other = (each.heatmap for each in explainer.explain([PICTURE], request)[0])
    fused = explainer.explain([PICTURE], replace(request, fuse=True))[0][0]
    assert fused.layer == layers.replace(",", "+")
    assert torch.allclose(fused.heatmap, one / one.max() / 2 + other / other.max() / 2, atol=1e-6)


def test_fusion_lies_where_its_parts_lie(explainer: Explainer) -> None:
    request = ExplainRequest(layer="emitting,roi", score_threshold=0, max_detections=1)
    parts = explainer.explain([PICTURE], request)[0]
    fused = explainer.explain([PICTURE], replace(request, fuse=True))[0][0]
    mean = sum(part.normalised() for part in parts) / 2
    assert fused.geometry == parts[0].geometry
    assert float((fused.on_picture() - mean).abs().mean()) < 0.02


def test_raw_activation_and_gradient_make_the_map(explainer: Explainer) -> None:
    for layer in ("emitting", "roi", CONV):
        request = ExplainRequest(layer=layer, score_threshold=0, max_detections=3, save_raw=True)
        for each in explainer.explain([PICTURE], request)[0]:
            assert each.activation is not None
            assert each.gradient is not None
            product = (each.activation * each.gradient).sum(0).clamp(min=0)
            assert torch.allclose(product, each.heatmap, atol=1e-4 * float(each.heatmap.max()))


@pytest.mark.parametrize("fields", [{"sum_boxes": True}, {"target": "box_score"}])
def test_boxes_together_have_no_pooled_map(explainer: Explainer, fields: dict[str, bool]) -> None:
    with pytest.raises(RequestError, match="boxes together have none"):
        explainer.check(ExplainRequest(layer="roi", **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("architecture", "stages"),
    [
        ("fasterrcnn_resnet50_fpn", "body.layer1 body.layer2 body.layer3 body.layer4"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "body.3 body.6 body.12 body.16"),
        ("ssd300_vgg16", "features.15 features extra.0 extra.1"),
        ("ssdlite320_mobilenet_v3_large", "features.0.3 features.0.6 features.0 features.1"),
    ],
)
def test_stages_by_their_names(architecture: str, stages: str) -> None:
    explainer = Explainer.from_model(small_model(architecture), CATEGORIES)
    side = explainer.detector.sample().tensors.shape[3]
    found = [find_stage(explainer.survey(), name, side) for name in STAGES]
    assert found == [f"backbone.{each}" for each in stages.split()]


@pytest.mark.parametrize("family", ["detr", "rt_detr"])
def test_stages_of_transformers(family: str) -> None:
    explainer = Explainer.from_model(tiny_model(family), TINY_CATEGORIES)
    side = explainer.detector.sample().tensors.shape[3]
    found = [find_stage(explainer.survey(), name, side) for name in STAGES]
    assert found == [f"model.backbone.model.encoder.stages.{place}" for place in range(4)]


def test_a_stage_is_explained_by_its_module(explainer: Explainer) -> None:
    by_stage, by_name = (
        explainer.explain([PICTURE], ExplainRequest(layer=layer, score_threshold=0))[0]
        for layer in ("C3", "backbone.body.block2")
    )
    assert {each.layer for each in by_stage} == {"backbone.body.block2"}
    assert all(
        torch.equal(one.heatmap, other.heatmap)
        for one, other in zip(by_stage, by_name, strict=True)
    )
    shallow = [each for each in explainer.survey() if each.name.count(".") < 2]
    with pytest.raises(RequestError, match=r"got 'C4'; allowed: a module's name: .* stride 16"):
        find_stage(shallow, "C4", 256)


def test_layers_named_twice_count_once() -> None:
    assert ExplainRequest(layer="roi, emitting,roi").layers == ("roi", "emitting")

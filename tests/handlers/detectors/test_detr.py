from __future__ import annotations

import copy
import functools
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DetrImageProcessor, RTDetrImageProcessor

from handlers.detectors.base import Features
from handlers.detectors.detr_pictures import SHORTEST_800, STRETCHED_640, Preparation
from handlers.detectors.registry import DetectorError, build_model
from handlers.explainer import Explainer
from handlers.images import PictureError
from handlers.schema import ExplainRequest, RequestError
from tests.conftest import random_picture
from tests.handlers.detectors.detr_twin import DetrTwin
from tests.handlers.detectors.tiny_transformers import (
    CATEGORIES,
    CONFIGS,
    FAMILIES,
    options,
    processor,
    tiny_model,
)

PICTURE = random_picture(90, 110)
STAGE = "model.backbone.model.encoder.stages.2"
REQUEST = ExplainRequest(score_threshold=0.1, max_detections=4)


@functools.cache
def explainer(family: str) -> Explainer:
    return Explainer.from_model(tiny_model(family), CATEGORIES)


@functools.cache
def twin_of(family: str, layer: str = "") -> DetrTwin:
    return DetrTwin(tiny_model(family), processor(family), PICTURE, layer)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(90, 110), (131, 47)])
def test_detections_are_the_library_s(family: str, size: tuple[int, int]) -> None:
    picture = random_picture(*size)
    (found,) = explainer(family).detect([picture])
    stock = DetrTwin(tiny_model(family), processor(family), picture).results
    order = stock["scores"].argsort(descending=True, stable=True)
    if family != "detr":  # DETR's processor keeps the order of the queries
        assert torch.equal(order, torch.arange(len(order)))
    assert len(found) == len(order) > 2
    assert torch.allclose(found.scores, stock["scores"][order], atol=1e-4)
    assert torch.equal(found.labels, stock["labels"][order])
    assert torch.allclose(found.boxes, stock["boxes"][order], atol=0.05)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("layer", "target", "method"),
    [
        ("", "box", "odam"),
        ("", "probability", "gradcam"),
        (STAGE, "class", "odam"),
        *(
            pytest.param(layer, target, method, marks=pytest.mark.full)
            for layer, target, method in [
                ("", "class", "layercam"),
                ("", "combined", "gradcam++"),
                (STAGE, "combined", "gradcam"),
                (STAGE, "y2", "hirescam"),
            ]
        ),
    ],
)
def test_maps_are_those_of_plain_autograd(
    family: str, layer: str, target: str, method: str
) -> None:
    request = replace(REQUEST, layer=layer or None, target=target, method=method)
    own = explainer(family)
    candidates = own.detect([PICTURE])[0].candidate.tolist()
    twin = twin_of(family, layer)
    explanations = own.explain([PICTURE], request)[0]
    assert len(explanations) == 4
    for each in explanations:
        expected, size = twin.heatmap(candidates[each.index], each.label, target, method)
        assert each.heatmap.shape == expected.shape
        assert torch.allclose(each.heatmap, expected, atol=1e-3 * size)
        assert size > 0


def test_maps_are_smoothed_unless_a_method_is_named() -> None:
    assert explainer("rt_detr").defaults == ExplainRequest(smooth=0.2)


@pytest.mark.parametrize("family", ["deformable_detr", "rt_detr"])
@pytest.mark.parametrize("layer", [None, "pyramid", STAGE])
def test_one_box_by_itself_and_as_a_sum_of_boxes(family: str, layer: str | None) -> None:
    request = replace(REQUEST, max_detections=1, layer=layer, target="combined")
    (alone,) = explainer(family).explain([PICTURE], request)[0]
    (total,) = explainer(family).explain([PICTURE], replace(request, sum_boxes=True))[0]

    def function(outputs: Any) -> Tensor:
        return torch.stack([outputs.own("logits"), *outputs["boxes"].unbind(1)]).sum(0)

    several = explainer(family).explain([PICTURE], replace(request, target=function))[0]
    assert alone.heatmap.max() > 0
    assert torch.allclose(alone.heatmap, total.heatmap, atol=1e-5 * float(alone.heatmap.max()))
    assert several[0].heatmap.max() > 0


@pytest.mark.parametrize("family", ["rt_detr", "d_fine"])
def test_what_the_decoder_makes_of_a_map_can_be_the_layer(family: str) -> None:
    layer = "model.decoder_input_proj.1"
    own = explainer(family)
    request = replace(REQUEST, layer=layer, method="gradcam")
    assert {each.name: each.part for each in own.survey()}[layer] == "decoder"
    twin = twin_of(family, layer)
    candidates = own.detect([PICTURE])[0].candidate.tolist()
    for each in own.explain([PICTURE], request)[0]:
        expected, size = twin.heatmap(candidates[each.index], each.label, "class", "gradcam")
        assert torch.allclose(each.heatmap, expected, atol=1e-3 * size)
    first = replace(request, max_detections=1)
    (alone,) = own.explain([PICTURE], first)[0]
    (total,) = own.explain([PICTURE], replace(first, sum_boxes=True))[0]
    assert torch.allclose(alone.heatmap, total.heatmap, atol=1e-5 * float(alone.heatmap.max()))


@pytest.mark.parametrize("family", ["detr", "deformable_detr", "d_fine"])
def test_layers_are_the_maps_before_the_decoder(family: str) -> None:
    layers = {each.name: each for each in explainer(family).survey()}
    projection = {"detr": "input_projection", "deformable_detr": "input_proj.0"}
    name = "model." + projection.get(family, "encoder_input_proj.0")
    for each in (name, STAGE):
        assert layers[each].part == "backbone"
        assert layers[each].explains("class")
    for name, layer in layers.items():
        if layer.explained and layer.part == "decoder":
            assert "decoder_input_proj" in name
    with pytest.raises(RequestError, match="got 'roi'; allowed: emitting, pyramid"):
        explainer(family).check(ExplainRequest(layer="roi"))


def test_equal_queries_have_equal_maps_and_names_of_their_own() -> None:
    model: Any = copy.deepcopy(tiny_model("detr"))
    with torch.no_grad():
        queries = model.model.query_position_embeddings.weight
        best = int(Explainer.from_model(model, CATEGORIES).detect([PICTURE])[0].candidate[0])
        queries[(best + 4) % 9] = queries[best]
    own = Explainer.from_model(model, CATEGORIES)
    (found,) = own.detect([PICTURE])
    ties = torch.isclose(found.scores, found.scores[found.candidate == best], atol=1e-6)
    assert set(found.candidate[ties].tolist()) == {best, (best + 4) % 9}
    assert sorted(found.candidate.tolist()) == list(range(len(found)))
    twin = DetrTwin(model, processor("detr"), PICTURE)
    for each in own.explain([PICTURE], replace(REQUEST, max_detections=9))[0]:
        query = int(found.candidate[each.index])
        expected, size = twin.heatmap(query, each.label, "class", "odam")
        assert torch.allclose(each.heatmap, expected, atol=1e-3 * size)


@pytest.mark.parametrize("family", ["two_stage", "rt_detr", "d_fine"])
def test_queries_stay_with_the_cells_that_they_were_made_of(family: str) -> None:
    own: Any = explainer(family).detector
    picture = torch.full((3, 90, 110), 127, dtype=torch.uint8)  # most cells are alike
    with torch.no_grad():
        features = own.features(own.prepare(picture))
        (candidates,) = own.propose(features)
        maps = list(features.maps.values())
        flipped = replace(
            candidates, level=candidates.level.flip(0), anchor=candidates.anchor.flip(0)
        )
        (raw,), (other,) = own.score(features, [candidates]), own.score(features, [flipped])
        stock = own.model(features.inputs.tensors)
    assert torch.allclose(raw.logits, stock.logits[0], atol=1e-4)
    if family != "two_stage":  # there the content of a query is where its box is, and its number
        assert torch.allclose(raw.logits, other.logits.flip(0), atol=1e-4)
    sizes = torch.tensor([each.shape[-2] * each.shape[-1] for each in maps])
    assert (candidates.anchor < sizes[candidates.level]).all()


@pytest.mark.parametrize("family", ["rt_detr", "d_fine"])
def test_a_query_s_level_and_anchor_are_where_its_cell_is(family: str) -> None:
    model: Any = copy.deepcopy(tiny_model(family))
    with torch.no_grad():  # the first boxes are the anchors now
        model.model.enc_bbox_head.layers[-1].weight.zero_()
        model.model.enc_bbox_head.layers[-1].bias.zero_()
        own: Any = Explainer.from_model(model, CATEGORIES).detector
        features = own.features(own.prepare(PICTURE))
        (candidates,) = own.propose(features)
        points = model(features.inputs.tensors).init_reference_points[0].sigmoid()
    sizes = [each.shape[-2:] for each in features.maps.values()]
    for level, anchor, point in zip(candidates.level, candidates.anchor, points, strict=True):
        height, width = sizes[int(level)]
        middle = ((int(anchor) % width + 0.5) / width, (int(anchor) // width + 0.5) / height)
        assert point[:2].tolist() == pytest.approx(middle, abs=1e-4)
        assert float(point[2]) == pytest.approx(0.05 * 2 ** int(level), abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_neighbours_in_a_batch_change_nothing(family: str) -> None:
    pictures = [random_picture(90, 110, seed) for seed in range(3)]
    own = explainer(family)
    together = own.explain(pictures, replace(REQUEST, max_detections=2))
    for picture, several in zip(pictures, together, strict=True):
        (alone,) = own.explain([picture], replace(REQUEST, max_detections=2))
        for one, other in zip(alone, several, strict=True):
            assert one.box == pytest.approx(other.box, abs=0.05)
            assert one.score == pytest.approx(other.score, abs=1e-4)
            size = float(one.heatmap.max())
            assert torch.allclose(one.heatmap, other.heatmap, atol=1e-3 * max(size, 1e-6))


@pytest.mark.parametrize("family", ["detr", "deformable_detr", "rt_detr", "d_fine"])
@pytest.mark.parametrize(("size", "dot"), [((70, 160), (120, 30)), ((150, 80), (20, 110))])
def test_maps_lie_where_the_picture_changed(
    family: str, size: tuple[int, int], dot: tuple[int, int]
) -> None:
    plain = torch.full((3, *size), 90, dtype=torch.uint8)
    dotted = plain.clone()
    dotted[:, dot[1] - 3 : dot[1] + 3, dot[0] - 3 : dot[0] + 3] = 255
    layer = "model.backbone.model.encoder.stages.1"  # of stride 8
    request = ExplainRequest(layer=layer, candidates=1, save_raw=True)
    own = explainer(family)
    (before,), (after,) = own.explain([plain, dotted], request)
    assert before.activation is not None
    assert after.activation is not None
    heat = after.geometry.to_picture((after.activation - before.activation).norm(dim=0))
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    stride = 8 / min(after.geometry.scale_x, after.geometry.scale_y)
    assert max(abs(column + 0.5 - dot[0]), abs(row + 0.5 - dot[1])) <= stride


def test_outcomes_say_why_a_label_was_not_reported() -> None:
    own = explainer("detr")
    found = own.explain([PICTURE], replace(REQUEST, candidates=45, method="gradcam"))[0]
    texts = [each.outcome for each in found]
    assert sum(text.startswith("reported as box") for text in texts) == len(
        own.detect([PICTURE])[0]
    )
    assert any(text.startswith("counts for") and text.endswith("alone") for text in texts)
    assert "below the score threshold of 0.1" in texts
    texts = [
        each.outcome
        for each in explainer("rt_detr").explain([PICTURE], replace(REQUEST, candidates=45))[0]
    ]
    assert texts[:9] == [f"reported as box {place}" for place in range(9)]
    assert texts[9] == "beyond the limit of 9 boxes"


@pytest.mark.parametrize("size", [(90, 110), (480, 640), (33, 200), (1200, 37), (800, 800)])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (DetrImageProcessor, {}),
        (DetrImageProcessor, {"size": {"shortest_edge": 97, "longest_edge": 131}}),
        (DetrImageProcessor, {"size": {"max_height": 50, "max_width": 90}}),
        (DetrImageProcessor, {"size": {"height": 64, "width": 96}, "resample": 3}),
        (DetrImageProcessor, {"do_resize": False, "image_mean": [0.5] * 3, "image_std": [0.2] * 3}),
        (RTDetrImageProcessor, {"size": {"height": 160, "width": 96}}),
        (RTDetrImageProcessor, {"size": {"height": 64, "width": 64}, "do_rescale": False}),
    ],
)
def test_pictures_are_prepared_as_by_the_library(
    kind: Any, settings: dict[str, Any], size: tuple[int, int]
) -> None:
    if not settings and min(size) < 80:
        size = (120, 160)  # spares a picture of 800 x 26,000 pixels
    picture = random_picture(*size)
    defaults = SHORTEST_800 if kind is DetrImageProcessor else STRETCHED_640
    expected = kind(**settings)(images=picture, return_tensors="pt")["pixel_values"]
    for given in (settings, kind(**settings).to_dict()):
        inputs = Preparation(given, defaults)(picture)
        assert inputs.tensors.shape == expected.shape
        assert torch.allclose(inputs.tensors, expected.float(), atol=1e-5 * float(expected.max()))
        assert inputs.sizes == [tuple(expected.shape[-2:])]
        frame = inputs.geometries[0]
        assert frame.scale_x == expected.shape[-1] / size[1]
        assert frame.scale_y == expected.shape[-2] / size[0]


def test_older_settings_give_sizes_as_numbers() -> None:
    inputs = Preparation({"size": 80, "max_size": 150, "do_pad": True}, SHORTEST_800)(PICTURE)
    assert inputs.sizes == [(80, 97)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": {"width": 3}}, "size is {'width': 3}; expected {\"shortest_edge\": 800"),
        ({"size": {"height": 0, "width": 9}}, "size is .*; expected"),
        ({"size": "large"}, "size is 'large'"),
        ({"resample": 1}, "resample is 1; expected 0"),
        ({"pad_size": {"height": 9, "width": 9}}, "leave it out"),
    ],
)
def test_settings_that_are_not_understood(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        Preparation(settings, SHORTEST_800)


def test_too_narrow_a_picture() -> None:
    with pytest.raises(PictureError, match="2000 x 2 pixels is too narrow"):
        explainer("detr").detect([torch.zeros(3, 2, 2000, dtype=torch.uint8)])


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "detr",
            {"model_type": "yolos"},
            "model_type is 'yolos'; expected one of conditional_detr",
        ),
        ("detr", {"id2label": {"0": "a"}}, "id2label names 1 labels for 5 categories"),
        ("detr", {"backbone": "a/b", "backbone_config": None}, "backbone 'a/b' would be fetched"),
        ("rt_detr", {"d_model": "wide"}, "transformers cannot be built"),
    ],
)
def test_refused_configs(family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        build_model("transformers", 5, {"config": CONFIGS[family] | changes})


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DetectorError, match=r"pip install 'whybox\[transformers\]'"):
        build_model("transformers", 5, options("detr"))


def test_the_model_is_left_as_it_was() -> None:
    model: Any = copy.deepcopy(tiny_model("rt_detr")).train()
    wanted = [each.requires_grad for each in model.parameters()]
    own = Explainer.from_model(model, CATEGORIES)
    own.explain([PICTURE], replace(REQUEST, layer=STAGE))

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    decoder = model.model.decoder.forward
    model.model.decoder.forward = broken
    with pytest.raises(RuntimeError, match="broken"):
        own.detect([PICTURE])
    model.model.decoder.forward = decoder
    for module in model.modules():
        assert module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert module is model.model.decoder or "forward" not in vars(module)
    assert [each.requires_grad for each in model.parameters()] == wanted
    assert isinstance(own.detector.features(own.detector.sample()), Features)


def test_operations_that_cannot_be_batched_are_done_one_by_one() -> None:
    class Kernel(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, values: Tensor) -> Tensor:
            return values * 1.0

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            assert gradients[0].sum().item() is not None  # what no batch of gradients can do
            return gradients[0] * 1.0

    class Last(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, values: Tensor) -> Tensor:
            kernel: Tensor = Kernel.apply(self.inner(values))
            return kernel

    model: Any = copy.deepcopy(tiny_model("detr"))
    model.class_labels_classifier = Last(model.class_labels_classifier)
    (slow,) = Explainer.from_model(model, CATEGORIES).explain([PICTURE], REQUEST)
    (fast,) = explainer("detr").explain([PICTURE], REQUEST)
    for one, other in zip(slow, fast, strict=True):
        size = float(other.heatmap.max())
        assert torch.allclose(one.heatmap, other.heatmap, atol=1e-4 * max(size, 1e-6))

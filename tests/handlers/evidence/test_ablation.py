from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

import handlers.detectors.faster_rcnn
import handlers.detectors.one_stage
from handlers.cam.channels import ablationcam, most_and_least_shown
from handlers.evidence import ablation, removal, scene
from handlers.evidence.scene import Piece
from handlers.explainer import Explainer
from tests.conftest import CATEGORIES, random_picture, small_model
from tests.handlers.evidence.asked import evidence
from tests.handlers.evidence.fixed_twin import FixedTwin

PICTURE = random_picture(120, 160)


@functools.lru_cache(maxsize=1)
def both(architecture: str) -> tuple[Explainer, FixedTwin]:
    model = small_model(architecture)
    return Explainer.from_model(model, CATEGORIES), FixedTwin(model, PICTURE)


def found(architecture: str, **fields: Any) -> list[list[Piece]]:
    return evidence(ablation.pieces, both(architecture)[0], PICTURE, **fields)


def assert_same(fast: float, slow: float, plain: float) -> None:
    assert fast == pytest.approx(slow, rel=1e-5, abs=1e-5 * max(1.0, abs(plain)))


CASES = [
    ("fasterrcnn_regnet_small_fpn", "class"),
    ("fasterrcnn_regnet_small_fpn", "probability"),
    ("fasterrcnn_regnet_small_fpn", "x2"),
    ("fasterrcnn_resnet50_fpn", "class"),
    ("fasterrcnn_resnet50_fpn_v2", "y1"),
    ("retinanet_resnet50_fpn", "class"),
    ("fcos_resnet50_fpn", "x1"),
    ("ssdlite320_mobilenet_v3_large", "class"),
    ("ssdlite320_mobilenet_v3_large", "x1"),
]
# Not all channels, to be quick; by the tutorial's rule these are the same for the twin.
SHARE = {
    "retinanet_resnet50_fpn": 0.02,
    "fcos_resnet50_fpn": 0.02,
    "fasterrcnn_resnet50_fpn_v2": 0.05,
}


@pytest.mark.parametrize(("architecture", "target"), CASES)
def test_equals_a_loop_through_the_stock_modules(architecture: str, target: str) -> None:
    twin, share = both(architecture)[1], SHARE.get(architecture, 1.0)
    for (piece,) in found(architecture, target=target, channels=share):
        (scores,) = piece.evidence
        for row, place in enumerate(piece.places.tolist()):
            level = twin.whole.level(target, place)
            assert torch.equal(scores.activation, twin.maps[level][0])
            plain = twin.scalar(place, target, twin.maps)
            assert_same(float(scores.value[row]), plain, plain)
            chosen = most_and_least_shown(scores.activation, share).tolist()
            for channel in chosen[:: 1 + len(chosen) // 6]:
                slow = twin.scalar(place, target, twin.without(level, channel))
                assert_same(float(scores.changed[row, channel]), slow, plain)
            left = torch.ones(len(scores.activation), dtype=torch.bool)
            left[chosen] = False
            assert (scores.changed[row, left] == scores.value[row]).all()
            assert (scores.changed[row, chosen] != scores.value[row]).any()


def without_paths(patch: pytest.MonkeyPatch, *ways: str) -> None:
    """Takes the fast ways away."""
    if "linear" in ways:
        plain = handlers.detectors.faster_rcnn.FasterRCNNDetector
        patch.setattr(plain, "_linear_start", lambda *_: None)
    if "windows" in ways:
        for family in (handlers.detectors.faster_rcnn, handlers.detectors.one_stage):
            patch.setattr(family, "reach", lambda _: None)
    if "chunks" in ways:
        patch.setattr(scene, "WINDOW_BUDGET", 1)
    if "spread" in ways:
        patch.setattr(removal, "_spreads", lambda *_: False)


def assert_equal_scores(fast: list[list[Piece]], slow: list[list[Piece]]) -> None:
    assert len(fast) == len(slow) > 0
    changes = 0.0
    for several, others in zip(fast, slow, strict=True):
        for one, other in zip(several, others, strict=True):
            assert torch.equal(one.places, other.places)
            assert one.geometries == other.geometries
            for mine, theirs in zip(one.evidence, other.evidence, strict=True):
                assert torch.allclose(mine.activation, theirs.activation, atol=1e-6)
                size = float(theirs.value.abs().max()) + 1
                assert torch.allclose(mine.value, theirs.value, atol=2e-6 * size)
                assert torch.allclose(mine.changed, theirs.changed, atol=1e-5 * size)
                changes = max(changes, float((mine.changed - mine.value[:, None]).abs().max()))
    assert changes > 1e-3


@pytest.mark.parametrize(
    ("architecture", "way", "fields"),
    [
        ("fasterrcnn_regnet_small_fpn", "linear", {"target": "combined"}),
        ("fasterrcnn_regnet_small_fpn", "linear", {"target": "probability", "sum_boxes": True}),
        ("fasterrcnn_regnet_small_fpn", "linear", {"layer": "pyramid", "channels": 0.2}),
        ("fasterrcnn_regnet_small_fpn", "linear", {"layer": "roi", "channels": 0.2}),
        ("fasterrcnn_regnet_small_fpn", "chunks", {"target": "box"}),
        ("fasterrcnn_regnet_small_fpn", "windows", {"target": "objectness"}),
        ("ssdlite320_mobilenet_v3_large", "windows", {"target": "combined", "channels": 0.05}),
        ("ssdlite320_mobilenet_v3_large", "windows", {"channels": 0.02, "sum_boxes": True}),
        (
            "ssdlite320_mobilenet_v3_large",
            "windows",
            {"layer": "head.classification_head.module_list.2.0", "channels": 0.05},
        ),
        (
            "fasterrcnn_regnet_small_fpn",
            "spread",
            {"layer": "backbone.body.block3", "channels": 0.03},
        ),
    ],
)
def test_fast_ways_equal_slow_ways(
    architecture: str, way: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = found(architecture, **fields)
    without_paths(monkeypatch, way)
    assert_equal_scores(fast, found(architecture, **fields))


@pytest.mark.parametrize(
    ("architecture", "module"),
    [
        ("fasterrcnn_regnet_small_fpn", "backbone.body.block4"),
        pytest.param(
            "fasterrcnn_resnet50_fpn", "backbone.body.layer4.1.relu", marks=pytest.mark.full
        ),
        ("ssdlite320_mobilenet_v3_large", "backbone.features.0.9"),
    ],
)
def test_a_module_of_the_backbone_equals_a_loop(architecture: str, module: str) -> None:
    twin = both(architecture)[1]
    ((piece,),) = found(architecture, layer=module, channels=0.03)
    (scores,) = piece.evidence
    changed = torch.where((scores.changed != scores.value[:, None]).any(0))[0].tolist()
    assert len(changed) >= 3
    for channel in changed[:4]:
        maps = twin.without_in(module, channel)
        for place in piece.places.tolist():
            slow = twin.scalar(place, "class", maps)
            assert_same(float(scores.changed[place, channel]), slow, float(scores.value[place]))


def test_a_sum_of_boxes_is_the_sum_of_what_each_says() -> None:
    """The logit is additive over boxes, so what a channel changes is, too."""
    architecture = "fasterrcnn_regnet_small_fpn"
    ((together,),) = found(architecture, sum_boxes=True, layer="pyramid")
    alone = [piece.evidence[0] for (piece,) in found(architecture, layer="pyramid")]
    total = sum((each.changed - each.value[:, None]).sum(0) for each in alone)
    scores = together.evidence[0]
    assert torch.allclose(scores.changed[0] - scores.value[0], total, atol=1e-4)


def test_pyramid_channels_are_those_of_the_emitting_level() -> None:
    architecture = "fasterrcnn_regnet_small_fpn"
    maps = both(architecture)[1].maps
    emitting = {
        int(p): (piece, row)
        for (piece,) in found(architecture)
        for row, p in enumerate(piece.places)
    }
    for (piece,) in found(architecture, layer="pyramid"):
        (scores,) = piece.evidence
        assert scores.activation.shape == (5 * 48, *maps[-1].shape[-2:])
        for row, place in enumerate(piece.places.tolist()):
            own, at = emitting[place]
            level = next(
                n for n, each in enumerate(maps) if torch.equal(each[0], own.evidence[0].activation)
            )
            wide = scores.value[row].repeat(5 * 48)
            wide[48 * level : 48 * (level + 1)] = own.evidence[0].changed[at]
            assert torch.allclose(scores.changed[row], wide)


def test_all_of_a_layer_without_a_part_leaves_the_map_empty() -> None:
    """SSD has a module for each feature map."""
    layer = "head.classification_head.module_list.5.0"
    for (piece,) in found("ssdlite320_mobilenet_v3_large", layer=layer):
        (scores,) = piece.evidence
        assert not ablationcam(scores).any()

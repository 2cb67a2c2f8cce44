from __future__ import annotations

import pytest
import torch

import handlers.detectors.faster_rcnn
import handlers.detectors.one_stage
from handlers.evidence import scene, structure
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest, Explanation
from tests.conftest import CATEGORIES, random_picture, small_model

PICTURE = random_picture(120, 160)


def explain(architecture: str, **fields: str) -> list[Explanation]:
    explainer = Explainer.from_model(small_model(architecture), CATEGORIES)
    return explainer.explain([PICTURE], ExplainRequest(score_threshold=0.0, **fields))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("architecture", "target", "layer"),
    [
        ("retinanet_resnet50_fpn", "combined", "emitting"),
        ("retinanet_resnet50_fpn", "class", "head.classification_head.conv.1.0"),
        ("retinanet_resnet50_fpn", "class", "head.classification_head.conv.3.1"),
        ("ssdlite320_mobilenet_v3_large", "class", "emitting"),
        ("ssdlite320_mobilenet_v3_large", "x1", "head.regression_head.module_list.2.0.0"),
        ("fasterrcnn_resnet50_fpn_v2", "objectness", "emitting"),
    ],
)
def test_windows_equal_the_whole_map(
    architecture: str, target: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = explain(architecture, target=target, layer=layer)
    for family in (handlers.detectors.faster_rcnn, handlers.detectors.one_stage):
        monkeypatch.setattr(family, "reach", lambda _: None)
    monkeypatch.setattr(structure, "towers_of", lambda *_: [])
    whole = explain(architecture, target=target, layer=layer)
    assert len(windows) == len(whole) == 12
    for fast, slow in zip(windows, whole, strict=True):
        assert fast.geometry == slow.geometry
        largest = float(slow.heatmap.max())
        assert torch.allclose(fast.heatmap, slow.heatmap, atol=1e-4 * largest)
    assert any(bool(slow.heatmap.any()) for slow in whole)


@pytest.mark.parametrize("layer", ["emitting", "pyramid", "backbone.body"])
@pytest.mark.parametrize(
    "architecture",
    [
        "fasterrcnn_regnet_small_fpn",
        pytest.param("retinanet_resnet50_fpn_v2", marks=pytest.mark.full),
    ],
)
def test_one_by_one_equals_all_at_once(
    architecture: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if layer == "backbone.body":
        layer += ".block3" if "small" in architecture else ".layer3"
    together = explain(architecture, layer=layer)
    monkeypatch.setattr(scene, "WINDOW_BUDGET", 1)
    alone = explain(architecture, layer=layer)
    for one, other in zip(together, alone, strict=True):
        largest = float(one.heatmap.max())
        assert torch.allclose(one.heatmap, other.heatmap, atol=1e-4 * largest)

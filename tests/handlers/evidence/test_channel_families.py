"""Ablation-CAM and Score-CAM of detectors that are not torchvision's, against plain loops through
their own networks; and what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from handlers.evidence import ablation, channel_masks
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from tests.conftest import CATEGORIES, small_model
from tests.handlers.detectors import test_detr, test_yolo
from tests.handlers.detectors.yolo_twin import CASES, cells
from tests.handlers.evidence.asked import evidence
from tests.handlers.evidence.classifier_peer import small_classifier

PICTURE = test_yolo.PICTURE


@pytest.mark.parametrize("name", ["yolov5", "yolov8", "yolox", "decoded"])
def test_yolo_equals_a_loop_through_the_head(name: str) -> None:
    explainer, (maps, _, kept) = test_yolo.explainer_of(name), test_yolo.twin_of(name)
    network: Any = explainer.detector.model
    plain = [each.detach() for each in maps]
    checked = 0
    for (piece,) in evidence(ablation.pieces, explainer, PICTURE):
        (scores,) = piece.evidence
        level = next(n for n, each in enumerate(plain) if torch.equal(each[0], scores.activation))
        for channel in range(0, len(scores.activation), 5):
            changed = [each.clone() for each in plain]
            changed[level][:, channel] = 0
            found = cells(CASES[name], network.head(changed))
            for row, place in enumerate(piece.places.tolist()):
                candidate, label = kept[place]
                slow = float(found[candidate].logits[label].detach())
                assert float(scores.changed[row, channel]) == pytest.approx(slow, abs=1e-4)
                checked += int(slow != float(scores.value[row]))
    assert checked > 2


@pytest.mark.parametrize("family", ["detr", "rt_detr"])
def test_queries_equal_a_loop_through_the_decoder(family: str) -> None:
    explainer = test_detr.explainer(family)
    (group,) = evidence(ablation.pieces, explainer, test_detr.PICTURE)
    found = explainer.network.find(explainer.prepare(test_detr.PICTURE))[0]
    entries = found.kept.entries[:2]
    assert len(group) == len(found.maps)
    for level, piece in enumerate(group):
        (scores,) = piece.evidence
        for channel in (0, 7, 30):
            maps = {name: each.clone() for name, each in found.features.maps.items()}
            [*maps.values()][level][:, channel] = 0
            part = explainer.detector.part("decoder", found, entries)
            slow = part.outputs([*maps.values()]).own("logits")
            torch.testing.assert_close(
                scores.changed[:, channel], slow.detach(), rtol=1e-4, atol=1e-4
            )
        assert (scores.changed != scores.value[:, None]).any()


FAMILIES: dict[str, Callable[[], Explainer]] = {
    "detr": lambda: test_detr.explainer("detr"),
    "yolov8": lambda: test_yolo.explainer_of("yolov8"),
    "decoded": lambda: test_yolo.explainer_of("decoded"),
    "classifier": small_classifier,
    "faster": lambda: Explainer.from_model(small_model("fasterrcnn_regnet_small_fpn"), CATEGORIES),
}
HEADS = {"yolov8": "head.branches.1.0.0", "decoded": "head.stems.0.0"}
STAGES = {"detr": test_detr.STAGE, "classifier": "layer2", "faster": "backbone.body.block2"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each map a few channels only."""
    monkeypatch.setattr(
        channel_masks, "in_chunks", lambda number, _: [torch.arange(3)] if number else []
    )


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("method", ["ablationcam", "scorecam"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_and_layer(family: str, method: str, together: bool) -> None:
    explainer = FAMILIES[family]()
    layers = ["emitting", "pyramid", HEADS.get(family), STAGES.get(family, "trunk.stem")]
    if family == "faster" and not together:
        layers.append("roi")
    for layer in layers:
        if layer is None:
            continue
        request = ExplainRequest(
            method=method,
            target="probability",
            layer=layer,
            channels=0.4,
            sum_boxes=together,
            score_threshold=0.0,
            max_detections=2,
        )
        found = explainer.explain([PICTURE], request)[0]
        assert len(found) == (1 if together else 2)
        for each in found:
            assert each.heatmap.isfinite().all()
            assert each.on_picture().shape == PICTURE.shape[1:]
        # Of three channels as masks, or of signed maps, nothing above zero may be left.
        if method == "ablationcam" and family != "detr":
            assert any(bool(each.heatmap.any()) for each in found), layer


def every_class(outputs: Any) -> Tensor:
    total: Tensor = outputs.own("logits").sum() + outputs["objectness"].sum()
    return total


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("method", ["ablationcam", "scorecam"])
def test_a_function_of_all_outputs(method: str) -> None:
    request = ExplainRequest(
        method, every_class, channels=0.05, score_threshold=0.0, max_detections=2
    )
    (found,) = FAMILIES["faster"]().explain([PICTURE], request)[0]
    assert found.heatmap.any()

"""Which weights are whose: shuffled, they change what they should and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from handlers.detectors.registry import build_model, detector_for
from handlers.detectors.weights import (
    BACKBONE,
    BOX_HEAD,
    CLASS_HEAD,
    PARTS,
    Weights,
    shuffled,
    weights_by_part,
)
from handlers.detectors.yolo import YOLOLike
from handlers.tap import undisturbed
from tests.conftest import random_picture, small_model
from tests.handlers.detectors.test_yolo import explainer_of
from tests.handlers.detectors.tiny_transformers import tiny_model

PICTURE = random_picture(90, 140, 3)


def yolo(name: str) -> nn.Module:
    detector = explainer_of(name).detector
    return YOLOLike(detector.model, detector.layout, detector.classes)  # type: ignore[attr-defined]


# Of each family a model, and modules that are the class head's and the box head's.
FAMILIES: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "two stages": (
        lambda: small_model("fasterrcnn_regnet_small_fpn"),
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
    ),
    "retinanet": (
        lambda: small_model("retinanet_resnet50_fpn"),
        "head.classification_head",
        "head.regression_head",
    ),
    "ssd": (
        lambda: small_model("ssdlite320_mobilenet_v3_large"),
        "head.classification_head",
        "head.regression_head",
    ),
    # One convolution gives both.
    "yolov5": (lambda: yolo("yolov5"), "head.m", "head.m"),
    "yolox": (lambda: yolo("yolox"), "", ""),
    "detr": (lambda: tiny_model("detr"), "class_labels_classifier", "bbox_predictor"),
    "rt_detr": (lambda: tiny_model("rt_detr"), "model.decoder.class_embed", "model.decoder.bbox_"),
}


SLOW = ("retinanet", "ssd")


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[pytest.mark.full] * (name in SLOW)) for name in FAMILIES],
)
def test_each_part_changes_what_is_its_own(family: str) -> None:
    model, classes, boxes = FAMILIES[family]
    detector = detector_for(model())
    with undisturbed(detector.model):
        inputs = detector.prepare(PICTURE)
        with torch.no_grad():
            candidates = detector.propose(detector.features(inputs))

        def gives() -> list[Tensor]:
            with torch.no_grad():
                features = detector.features(inputs)
                (raw,) = detector.score(features, candidates)
            return [next(iter(features.maps.values())), raw.logits, raw.boxes]

        found = weights_by_part(detector, inputs)
        before = gives()
        # Refined from layer to layer, boxes decide where the next one looks.
        refined = family == "rt_detr"
        effects = {CLASS_HEAD: (0, 1, 0), BOX_HEAD: (0, refined, 1), BACKBONE: (1, 1, 1)}
        for part, changed in effects.items():
            with shuffled(found[part], 1):
                after = gives()
            for old, new, changes in zip(before, after, changed, strict=True):
                moved = (old - new).abs().mean() / old.abs().mean()
                # What does not change may be summed up in another order.
                assert moved > 1e-3 if changes else moved < 1e-6, part
        assert all(torch.equal(*pair) for pair in zip(before, gives(), strict=True))
    for part, start in ((CLASS_HEAD, classes), (BOX_HEAD, boxes)):
        assert found[part]
        assert all(each.name.startswith(start) for each in found[part])
    names = [[each.name for each in found[part]] for part in PARTS]
    assert not {*names[2]} & {*names[0], *names[1]}


def test_rows_of_one_convolution_are_told_apart() -> None:
    detector = explainer_of("yolov5").detector
    found = weights_by_part(detector, detector.prepare(PICTURE))
    for part, expected in ((CLASS_HEAD, (5, 6, 7)), (BOX_HEAD, (0, 1, 2, 3))):
        for each in found[part]:
            # Three anchors of x, y, w, h, objectness and three classes.
            rows = torch.tensor([8 * anchor + row for anchor in range(3) for row in expected])
            assert each.rows is not None
            assert each.rows.tolist() == sorted(rows.tolist())
            assert len(each) == len(rows) * each.parameter[0].numel()


def test_a_classifier_has_no_box_head() -> None:
    detector = detector_for(build_model("resnet18", 3, {"size": 64}))
    found = weights_by_part(detector, detector.prepare(PICTURE))
    assert [part for part in PARTS if not found[part]] == [BOX_HEAD]


def test_weights_come_back_after_an_error_and_keep_how_they_are_spread() -> None:
    layer = nn.Linear(30, 20)
    rows = torch.tensor([1, 4])
    weights = [Weights("weight", layer.weight, rows), Weights("bias", layer.bias)]
    before = [each.detach().clone() for each in layer.parameters()]
    inside: list[Tensor] = []

    def fail() -> None:
        with shuffled(weights, 3):
            inside.extend(each.detach().clone() for each in layer.parameters())
            raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        fail()
    assert all(torch.equal(*pair) for pair in zip(before, layer.parameters(), strict=True))
    others = torch.ones(20, dtype=torch.bool)
    others[rows] = False
    assert torch.equal(inside[0][others], before[0][others])
    for mine, new in ((before[0][rows], inside[0][rows]), (before[1], inside[1])):
        assert not torch.equal(mine, new)
        assert torch.equal(mine.flatten().sort().values, new.flatten().sort().values)
    with shuffled(weights, 3):
        assert torch.equal(layer.weight, inside[0])
    with shuffled(weights, 4):
        assert not torch.equal(layer.weight, inside[0])

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

import handlers.memory
from handlers.cam.registry import METHODS, Evidence, evidence_of
from handlers.detectors.base import Found, Inputs
from handlers.detectors.registry import DetectorError
from handlers.explainer import Explainer
from handlers.images import PictureError
from handlers.manifest import Manifest
from handlers.memory import Footprint
from handlers.schema import ExplainRequest, RequestError
from tests.conftest import CATEGORIES, random_picture, scene_picture, small_model
from tests.handlers.slow_twin import FORMULAS, SlowTwin

PICTURE = random_picture(140, 190)
SCENE = scene_picture(0)


def assert_close(fast: torch.Tensor, slow: torch.Tensor) -> None:
    assert fast.shape == slow.shape
    assert float((fast - slow).abs().max()) <= 1e-3 * float(slow.max()) + 1e-12


def test_every_method_has_a_slow_twin() -> None:
    on_a_layer = (Evidence.GRADIENT, Evidence.ACTIVATION)
    assert [name for name in METHODS.names() if evidence_of(name) in on_a_layer] == sorted(FORMULAS)


@pytest.fixture(scope="module")
def twin(demo: Explainer) -> SlowTwin:
    return SlowTwin(demo.detector.model, SCENE)


@pytest.mark.parametrize("method", sorted(FORMULAS))
@pytest.mark.parametrize("target", ["class", "box"])
def test_methods_equal_plain_autograd(
    demo: Explainer, twin: SlowTwin, method: str, target: str
) -> None:
    explanations = demo.explain([SCENE], ExplainRequest(method, target))[0]
    boxes = demo.detect([SCENE])[0].boxes
    for each in explanations:
        level, slow = twin.heatmap(boxes[each.index], each.label, method, target)
        assert each.level == level
        assert_close(each.heatmap, slow)
        assert float(slow.max()) > 0
    assert len({each.level for each in explanations}) > 1


def test_roi_layer_equals_plain_autograd_and_is_drawn_into_the_proposal(
    demo: Explainer, twin: SlowTwin
) -> None:
    explanations = demo.explain([SCENE], ExplainRequest("hirescam", layer="roi"))[0]
    boxes = demo.detect([SCENE])[0].boxes
    scale = 320 / min(SCENE.shape[1:])
    assert len(explanations) > 2
    for each in explanations:
        proposal, slow = twin.roi_heatmap(boxes[each.index], each.label)
        assert_close(each.heatmap, slow)
        covered = replace(each, heatmap=torch.ones(7, 7)).on_picture()
        rows, columns = torch.where(covered > 0)
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert [int(edge) for edge in drawn] == pytest.approx(
            [edge / scale for edge in proposal], abs=1.01
        )


def test_heat_is_drawn_where_the_object_is(demo: Explainer) -> None:
    """The heat's middle lies at the box's middle on average, to a fraction of a cell: a strided
    map drawn by dividing the picture evenly would miss by nearly half a cell."""
    misses: dict[str, list[list[float]]] = {}
    for number in range(24):
        picture = scene_picture(number)
        for each in demo.explain([picture], ExplainRequest("layercam"))[0]:
            cell = each.geometry.frame_width / each.heatmap.shape[1] / each.geometry.scale_x
            heat = each.on_picture()
            height, width = heat.shape
            x = float((heat.sum(0) * (torch.arange(width) + 0.5)).sum() / heat.sum())
            y = float((heat.sum(1) * (torch.arange(height) + 0.5)).sum() / heat.sum())
            x1, y1, x2, y2 = each.box
            miss = [(x - (x1 + x2) / 2) / cell, (y - (y1 + y2) / 2) / cell]
            misses.setdefault(each.level, []).append(miss)
    for level in ("0", "1"):
        assert len(misses[level]) > 20
        mean = torch.tensor(misses[level]).mean(0)
        assert float(mean.abs().max()) < 0.25, (level, mean)


@pytest.mark.parametrize(
    ("architecture", "target"),
    [
        ("fasterrcnn_resnet50_fpn", "probability"),
        ("fasterrcnn_resnet50_fpn_v2", "box"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "class"),
    ],
)
def test_architectures_equal_plain_autograd(architecture: str, target: str) -> None:
    model = small_model(architecture)
    explainer = Explainer.from_model(model, CATEGORIES)
    picture = random_picture(120, 90, seed=3)
    slow_twin = SlowTwin(model, picture)
    request = ExplainRequest(target=target, max_detections=4, score_threshold=0.0)
    boxes = explainer.detect([picture])[0].boxes
    explanations = explainer.explain([picture], request)[0]
    assert len(explanations) == 4
    for each in explanations:
        level, slow = slow_twin.heatmap(boxes[each.index], each.label, "odam", target)
        assert each.level == level
        assert_close(each.heatmap, slow)
    assert any(float(each.heatmap.max()) > 0 for each in explanations)


def test_a_picture_does_not_depend_on_its_neighbours(demo: Explainer) -> None:
    pictures = [scene_picture(number) for number in range(6)]
    pictures += [pictures[0].flip(2), pictures[1][:, :-3]]  # these share a batch with their twins
    request = ExplainRequest(score_threshold=0.1)
    together = demo.explain(pictures, request, batch_size=3)
    assert sum(len(each) for each in together) > 10
    for picture, explanations in zip(pictures, together, strict=True):
        alone = demo.explain([picture], request)[0]
        assert [each.label for each in alone] == [each.label for each in explanations]
        for one, other in zip(alone, explanations, strict=True):
            assert one.box == pytest.approx(other.box, abs=0.05)
            assert one.score == pytest.approx(other.score, abs=1e-4)
            assert one.geometry == other.geometry
            assert_close(other.heatmap, one.heatmap)


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        ({}, ExplainRequest(smooth=0.2)),
        ({"target": "x1"}, ExplainRequest(target="x1", smooth=0.2)),
        ({"method": "layercam"}, ExplainRequest(method="layercam")),
    ],
)
def test_defaults_are_the_familys_under_the_archives(
    archive: dict[str, Any], expected: ExplainRequest
) -> None:
    model = small_model("fasterrcnn_regnet_small_fpn")
    manifest = Manifest("demo", "1.0", "none", CATEGORIES, {}, defaults=archive)
    assert Explainer.from_model(model, CATEGORIES, manifest=manifest).defaults == expected
    assert ExplainRequest() == ExplainRequest(smooth=0.0)


def test_request_chooses_boxes(explainer: Explainer) -> None:
    picture = random_picture(140, 190)
    detections = explainer.detect([picture])[0]
    threshold = float(detections.scores[7])
    above = explainer.explain([picture], ExplainRequest(score_threshold=threshold))[0]
    assert [each.index for each in above] == list(range(8))
    best = explainer.explain([picture], ExplainRequest(max_detections=3, score_threshold=0.0))[0]
    assert [each.index for each in best] == [0, 1, 2]
    category = CATEGORIES[int(detections.labels[0])]
    same = explainer.explain([picture], ExplainRequest(category=category, score_threshold=0.0))[0]
    expected = torch.where(detections.labels == detections.labels[0])[0].tolist()
    assert [each.index for each in same] == expected


def test_no_detections_give_no_explanations(explainer: Explainer) -> None:
    assert explainer.explain([random_picture(80, 80)], ExplainRequest(score_threshold=1.0)) == [[]]
    assert explainer.explain([]) == []


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("method", "gradcamm", "gradcam, gradcam++"),
        ("target", "clas", "box, box_score, class, combined, height, objectness, probability"),
        ("layer", "backbone.body.layer9", "emitting, roi, pyramid, C2, C3, C4, C5, backbone.body"),
        ("category", "dgo", "cat, dog, bird, fish"),
    ],
)
def test_unknown_names_list_the_valid_ones(
    explainer: Explainer, field: str, value: str, allowed: str
) -> None:
    with pytest.raises(RequestError, match=f"{field}: got '{value}'") as error:
        explainer.explain([], ExplainRequest(**{field: value}))  # type: ignore[arg-type]
    assert allowed in str(error.value)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.zeros(3, 1, 5000, dtype=torch.uint8), "too narrow"),
        (torch.zeros(3, 10, 10), r"expected a uint8 RGB tensor .* got float32 \[3, 10, 10\]"),
        (torch.zeros(1, 10, 10, dtype=torch.uint8), r"got uint8 \[1, 10, 10\]"),
    ],
)
def test_pictures_that_cannot_be_taken(
    explainer: Explainer, picture: torch.Tensor, message: str
) -> None:
    with pytest.raises(PictureError, match=message):
        explainer.explain([picture])


def test_one_pixel_is_a_picture(explainer: Explainer) -> None:
    explanations = explainer.explain([random_picture(1, 1)], ExplainRequest(score_threshold=0.0))[0]
    assert explanations
    assert all(each.on_picture().shape == (1, 1) for each in explanations)


def test_bf16_is_close_and_fp32_is_the_default(demo: Explainer) -> None:
    assert demo.precision == "fp32"
    rough = Explainer(demo.detector, demo.categories, precision="bf16")
    fine, coarse = (each.explain([SCENE])[0] for each in (demo, rough))
    assert [each.label for each in fine] == [each.label for each in coarse]
    scores = torch.tensor(
        [[one.score, other.score] for one, other in zip(fine, coarse, strict=True)]
    )
    assert 0 < float((scores[:, 0] - scores[:, 1]).abs().max()) < 0.1
    for one, other in zip(fine, coarse, strict=True):
        difference = (one.heatmap - other.heatmap).abs().max()
        assert 0 < float(difference) < 0.2 * float(one.heatmap.max())


@pytest.mark.parametrize(
    ("name", "value"), [("device", "abacus"), ("device", "meta"), ("precision", "fp7")]
)
def test_wrong_device_or_precision(name: str, value: str) -> None:
    model = small_model("fasterrcnn_regnet_small_fpn")
    with pytest.raises(RequestError, match=f"{name}: got '{value}'"):
        Explainer.from_model(model, CATEGORIES, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("categories", [CATEGORIES[1:], (*CATEGORIES, "unicorn")])
def test_categories_must_be_the_detectors(categories: tuple[str, ...]) -> None:
    with pytest.raises(
        DetectorError, match=f"got {len(categories)} categories for a detector of 5"
    ):
        Explainer.from_model(small_model("fasterrcnn_regnet_small_fpn"), categories)


def test_works_inside_inference_mode(explainer: Explainer) -> None:
    expected = explainer.explain([PICTURE], ExplainRequest(score_threshold=0.0))[0]
    with torch.inference_mode():
        found = explainer.explain([PICTURE], ExplainRequest(score_threshold=0.0))[0]
    assert torch.equal(found[0].heatmap, expected[0].heatmap)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_is_at_least_one(explainer: Explainer, batch_size: int) -> None:
    with pytest.raises(RequestError, match="batch_size"):
        explainer.detect([PICTURE], batch_size)


def test_a_batch_that_does_not_fit_memory_is_cut_and_said_once(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [random_picture(80, 96, seed) for seed in range(4)]
    plain = explainer.detect(pictures, batch_size=1)
    sizes: list[int] = []
    find = explainer.network.find

    def watched(inputs: Inputs) -> list[Found]:
        sizes.append(len(inputs.tensors))
        return find(inputs)

    monkeypatch.setattr(explainer.network, "find", watched)
    monkeypatch.setattr(explainer, "_footprint", Footprint())
    monkeypatch.setattr(handlers.memory, "free_bytes", lambda _: 1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = explainer.detect(pictures, batch_size=4)
        explainer.detect(pictures, batch_size=4)
    (said,) = told
    assert "batch_size: 4 pictures at a time do not fit memory" in str(said.message)
    assert sizes == [1] * 8
    for one, other in zip(plain, found, strict=True):
        assert torch.equal(one.boxes, other.boxes)

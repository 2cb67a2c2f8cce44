from __future__ import annotations

import pytest
import torch

from handlers.cam.registry import METHODS
from handlers.explainer import Explainer
from handlers.images import PictureError
from handlers.schema import ExplainRequest, RequestError
from tests.conftest import CATEGORIES, random_picture, scene_picture, small_model
from tests.handlers.slow_twin import FORMULAS, SlowTwin

PICTURE = random_picture(140, 190)


def assert_close(fast: torch.Tensor, slow: torch.Tensor) -> None:
    assert fast.shape == slow.shape
    assert float((fast - slow).abs().max()) <= 1e-3 * float(slow.max()) + 1e-12


def test_every_method_has_a_slow_twin() -> None:
    assert METHODS.names() == sorted(FORMULAS)


@pytest.fixture(scope="module")
def twin() -> SlowTwin:
    return SlowTwin(small_model("fasterrcnn_regnet_small_fpn"), PICTURE)


@pytest.mark.parametrize("method", sorted(FORMULAS))
@pytest.mark.parametrize("target", ["class", "box"])
def test_methods_equal_plain_autograd(
    explainer: Explainer, twin: SlowTwin, method: str, target: str
) -> None:
    request = ExplainRequest(method, target, score_threshold=0.0, max_detections=6)
    explanations = explainer.explain([PICTURE], request)[0]
    boxes = explainer.detect([PICTURE])[0].boxes
    assert len(explanations) == 6
    for each in explanations:
        level, slow = twin.heatmap(boxes[each.index], each.label, method, target)
        assert each.level == level
        assert_close(each.heatmap, slow)
    assert len({each.level for each in explanations}) > 1


@pytest.mark.parametrize(
    ("architecture", "target"),
    [
        ("fasterrcnn_resnet50_fpn", "probability"),
        ("fasterrcnn_resnet50_fpn_v2", "x1"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "y2"),
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
            assert_close(other.heatmap, one.heatmap)


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


def test_roi_layer_is_the_pooled_map_drawn_into_the_proposal(explainer: Explainer) -> None:
    picture = random_picture(140, 190)
    request = ExplainRequest(method="hirescam", layer="roi", max_detections=5, score_threshold=0.0)
    emitting = ExplainRequest(method="hirescam", max_detections=5, score_threshold=0.0)
    pairs = zip(
        explainer.explain([picture], request)[0],
        explainer.explain([picture], emitting)[0],
        strict=True,
    )
    for roi, whole in pairs:
        assert roi.heatmap.shape == (7, 7)
        assert roi.on_picture().shape == whole.on_picture().shape == (140, 190)
        outside = roi.on_picture() == 0
        assert outside.any()


def test_no_detections_give_no_explanations(explainer: Explainer) -> None:
    assert explainer.explain([random_picture(80, 80)], ExplainRequest(score_threshold=1.0)) == [[]]
    assert explainer.explain([]) == []


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("method", "gradcamm", "eigencam, eigengradcam, gradcam, gradcam++"),
        ("target", "clas", "class, probability, x1, y1, x2, y2, box"),
        ("layer", "backbone.body.layer9", "emitting, roi"),
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
    assert all(each.on_picture().shape == (1, 1) for each in explanations)


def test_bf16_is_close_and_fp32_is_the_default(explainer: Explainer) -> None:
    assert explainer.precision == "fp32"
    rough = Explainer(explainer.detector, CATEGORIES, precision="bf16")
    picture = random_picture(140, 190)
    fine, coarse = (each.detect([picture])[0] for each in (explainer, rough))
    assert float((fine.scores[:3] - coarse.scores[:3]).abs().max()) < 0.1
    assert coarse.boxes.dtype == torch.float32


@pytest.mark.parametrize(("name", "value"), [("device", "abacus"), ("precision", "fp7")])
def test_wrong_device_or_precision(name: str, value: str) -> None:
    model = small_model("fasterrcnn_mobilenet_v3_large_320_fpn")
    with pytest.raises(RequestError, match=f"{name}: got '{value}'"):
        Explainer.from_model(model, CATEGORIES, **{name: value})  # type: ignore[arg-type]

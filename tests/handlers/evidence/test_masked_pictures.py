from __future__ import annotations

import functools
import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import handlers.memory
from handlers.cam import masks
from handlers.cam.masks import cell_means
from handlers.cam.registry import METHODS
from handlers.detectors.base import Found
from handlers.detectors.classifier import ClassifierDetector
from handlers.detectors.registry import build_model
from handlers.evidence import masked_pictures
from handlers.evidence.masked_pictures import DetectorOnMasks
from handlers.explainer import Explainer
from handlers.images import Geometry
from handlers.memory import MIB, Footprint
from handlers.network import with_pixels
from handlers.schema import ExplainRequest, Explanation, RequestError
from tests.conftest import CATEGORIES, random_picture, small_model
from tests.handlers.cam.synthetic_masks import means_by_hand, rise_masks
from tests.handlers.detectors import test_yolo, tiny_transformers
from tests.handlers.evidence.asked import evidence

PICTURE = random_picture(120, 160)
YOLO = {  # letterboxed, or not; mirrored, or not; with objectness, or without
    "yolov5": ("letterbox", "horizontal"),
    "yolov8": ("corner", "none"),
    "yolox": ("stretch", "both"),
}
QUICK = [
    "fasterrcnn_regnet_small_fpn",
    *YOLO,
    "detr",
    "rt_detr",
    "classifier",
    "cropping classifier",
]
OTHERS = ["ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn"]
KINDS = [*OTHERS, *QUICK]
SLOW = pytest.mark.full
SMALL = "fasterrcnn_regnet_small_fpn"


@functools.lru_cache(maxsize=3)
def explainer_of(kind: str) -> Explainer:
    if kind in YOLO:
        return test_yolo.explainer_of(kind, *YOLO[kind])
    if "detr" in kind:
        return Explainer.from_model(
            tiny_transformers.tiny_model(kind), tiny_transformers.CATEGORIES
        )
    if "classifier" in kind:
        torch.manual_seed(1)
        options = {"size": 64, "resize": "crop" if "crop" in kind else "stretch"}
        return Explainer.from_model(
            build_model("shufflenet_v2_x0_5", len(CATEGORIES), options), CATEGORIES
        )
    return Explainer.from_model(small_model(kind), CATEGORIES)


def masks_on(kind: str, picture: Tensor = PICTURE, **fields: Any) -> tuple[DetectorOnMasks, Any]:
    """The evidence on the best two boxes, and where its maps lie."""
    explainer = explainer_of(kind)
    ((piece,),) = evidence(masked_pictures.groups, explainer, picture, **fields)
    (found,) = piece.evidence
    assert len(piece.places) == len(piece.geometries) == (1 if fields.get("sum_boxes") else 2)
    return found, piece.geometries[0]


def explained(kind: str, batch_size: int | None = None, **fields: Any) -> list[Explanation]:
    request = ExplainRequest(score_threshold=0.0, max_detections=2, **fields)
    return explainer_of(kind).explain([PICTURE], request, batch_size)[0]


def iou(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, width) * max(0.0, height)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, other)]
    return common / (sum(areas) - common)


def cosine(one: list[float], other: list[float]) -> float:
    inner = sum(a * b for a, b in zip(one, other, strict=True))
    return inner / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def similarity_by_hand(explainer: Explainer, first: Found, number: int, masked: Found) -> float:
    """The paper's formula for one box of the whole picture and all of the masked one's."""
    detector, start = explainer.detector, explainer.detector.first_label
    own = first.kept.entries
    if isinstance(detector, ClassifierDetector):
        return float(masked.raw.scores[0, own.labels[number]])
    box = first.kept.boxes[number].tolist()
    vector = first.raw.scores[own.candidate[number], start:].tolist()
    entries = masked.kept.entries
    objectness = [1.0] * len(entries)
    if "objectness" in detector.parts().get("head", next(iter(detector.parts().values()))).outputs:
        outputs = detector.part("head", masked, entries).outputs(masked.maps)
        objectness = outputs["objectness"].sigmoid().tolist()
    best = 0.0
    for place in range(len(entries)):
        scores = masked.raw.scores[entries.candidate[place], start:].tolist()
        overlap = iou(box, masked.kept.boxes[place].tolist())
        best = max(best, overlap * cosine(vector, scores) * objectness[place])
    return best


def by_hand(kind: str, number: int, seed: int) -> list[Tensor]:
    """D-RISE of the best two boxes in plain loops, a mask at a time; not yet from zero on."""
    explainer = explainer_of(kind)
    detector = explainer.detector
    inputs = detector.prepare(PICTURE)
    black = detector.prepare(torch.zeros(3, 60, 60, dtype=torch.uint8)).tensors
    middle = black[0, :, black.shape[2] // 2, black.shape[3] // 2]
    first = explainer.network.find(inputs)[0]
    left, top, right, bottom = INSIDE.get(kind, (0, 0, *inputs.sizes[0][::-1]))
    height, width = bottom - top, right - left
    cell = min(8, min(height, width) // 32)
    totals = [torch.zeros(()), torch.zeros(())]
    for mask in rise_masks(seed, number, height, width):
        pixels = inputs.tensors.clone()
        for channel in range(3):
            inside = pixels[0, channel, top:bottom, left:right]
            inside.copy_(mask * inside + (1 - mask) * middle[channel])
        masked = explainer.network.find(with_pixels(inputs, pixels))[0]
        for place in range(2):
            found = similarity_by_hand(explainer, first, place, masked)
            totals[place] = totals[place] + found * means_by_hand(mask, cell) / (0.5 * number)
    return totals


# Of the canvas of 160 x 128 pixels what a picture of 160 x 120 has, where that is not all.
INSIDE = {"yolov5": (0, 4, 160, 124), "yolov8": (0, 0, 160, 120)}


@pytest.mark.parametrize("kind", KINDS)
def test_drise_equals_plain_loops(kind: str) -> None:
    maps = [each.heatmap for each in explained(kind, method="drise", masks=6, seed=3)]
    slow = by_hand(kind, 6, 3)
    assert len(maps) == 2
    for heat, total in zip(maps, slow, strict=True):
        # The random RT-DETR finds none of its boxes again on these masks.
        assert kind == "rt_detr" or float(total.max()) > 0
        expected = total - total.min()
        # NMS may decide otherwise by rounding, so not more closely.
        torch.testing.assert_close(heat, expected, atol=1e-3 * float(expected.max()), rtol=1e-3)
    (together,) = explained(kind, method="drise", masks=6, seed=3, sum_boxes=True)
    expected = slow[0] + slow[1]
    expected = expected - expected.min()
    torch.testing.assert_close(
        together.heatmap, expected, atol=1e-3 * float(expected.max()), rtol=1e-3
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [*QUICK, *(pytest.param(kind, marks=SLOW) for kind in OTHERS)])
def test_dclose_explains_every_family(kind: str) -> None:
    first, second = explained(kind, method="dclose", masks=10)
    for each in (first, second):
        assert each.level
        assert bool(each.heatmap.isfinite().all())
        assert float(each.heatmap.min()) >= 0
        assert each.on_picture().shape == PICTURE.shape[1:]
    # The random RT-DETR may find nothing again.
    assert kind == "rt_detr" or min(float(each.heatmap.max()) for each in (first, second)) > 0
    (again, _) = explained(kind, method="dclose", masks=10)
    assert torch.equal(first.heatmap, again.heatmap)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("x", "y"), [(60, 40), (110, 80)])
def test_maps_lie_where_the_picture_is(kind: str, x: int, y: int) -> None:
    picture = torch.zeros(3, 120, 160, dtype=torch.uint8)
    picture[0, y - 8 : y + 8, x - 8 : x + 8] = 255
    found, geometry = masks_on(kind, picture)
    seen = found.picture()
    assert seen.shape == (3, found.height, found.width)
    red, green, blue = seen
    assert float(red.max()) == pytest.approx(1, abs=1e-4)
    assert float(green.max()) == pytest.approx(0, abs=1e-4)
    assert float(blue.max()) == pytest.approx(0, abs=1e-4)
    heat = cell_means(red[None], found.cell)[0]
    assert isinstance(geometry, Geometry)
    drawn = geometry.to_picture(heat).double()
    assert drawn.shape == (120, 160)
    middle_x = float((drawn.sum(0) * (torch.arange(160) + 0.5)).sum() / drawn.sum())
    middle_y = float((drawn.sum(1) * (torch.arange(120) + 0.5)).sum() / drawn.sum())
    assert (middle_x, middle_y) == pytest.approx((x, y), abs=0.6)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_hidden_finds_the_boxes_again(kind: str) -> None:
    found, _ = masks_on(kind)
    whole = torch.ones(2, found.height, found.width)
    similarity = found.similarities(whole)
    if "yolo" in kind or "classifier" in kind:
        assert bool((similarity <= 1).all())
        assert bool((similarity > 0).all())
        return
    torch.testing.assert_close(similarity, torch.ones(2, 2), atol=1e-3, rtol=0)


def test_no_detections_under_a_mask_count_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = masks_on("fasterrcnn_regnet_small_fpn")
    model: Any = explainer_of("fasterrcnn_regnet_small_fpn").detector.model
    monkeypatch.setattr(model.roi_heads, "score_thresh", 1.1)
    assert not found.similarities(torch.ones(3, found.height, found.width)).any()
    for method in ("drise", "dclose"):
        function = METHODS.get(method)
        assert function is not None
        found.masks = 6
        assert not function(found).any()


@pytest.mark.parametrize("corners", [(5.0, 5.0, 5.0, 5.0), (9.0, 9.0, 4.0, 4.0)])
def test_boxes_without_an_area_match_nothing(corners: tuple[float, ...]) -> None:
    found, _ = masks_on("fasterrcnn_regnet_small_fpn")
    (masked,) = found.scene.found_in(found.scene.pixels)
    flat = torch.tensor(corners).expand_as(masked.kept.boxes)
    vars(found)["_boxes"] = flat[:2]
    similarity = found._best_match(replace(masked, kept=replace(masked.kept, boxes=flat)))
    assert similarity.tolist() == [0.0, 0.0]


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many masked pictures each run had. There is memory; it is not known what one takes."""
    noted: list[int] = []
    whole = DetectorOnMasks._of_batch

    def watched(self: DetectorOnMasks, masks: Tensor) -> list[Tensor]:
        noted.append(len(masks))
        return whole(self, masks)

    monkeypatch.setattr(DetectorOnMasks, "_of_batch", watched)
    monkeypatch.setattr(explainer_of(SMALL), "_masked", Footprint())
    monkeypatch.setattr(handlers.memory, "free_bytes", lambda _: 2**50)
    return noted


def assert_same_maps(found: list[Explanation], expected: list[Explanation]) -> None:
    for one, other in zip(found, expected, strict=True):
        largest = float(other.heatmap.max())
        torch.testing.assert_close(one.heatmap, other.heatmap, atol=1e-3 * largest, rtol=0)


@pytest.mark.parametrize("method", ["drise", "dclose"])
@pytest.mark.parametrize("batch", [1, 50])
def test_batches_and_memory_change_nothing(
    method: str, batch: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = explained(SMALL, method=method, masks=12)
    assert max(sizes) == (4 if method == "drise" else 3)
    sizes.clear()
    monkeypatch.setattr(masked_pictures, "BATCH", {"cpu": batch})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nobody asked for just this batch
        large = explained(SMALL, method=method, masks=12)
        assert max(sizes) == (1 if batch == 1 else 12 if method == "drise" else 3)
        sizes.clear()
        monkeypatch.setattr(handlers.memory, "free_bytes", lambda _: 0)
        small = explained(SMALL, method=method, masks=12)
        assert sizes == [1] * 12
    assert_same_maps(large, plain)
    assert_same_maps(small, plain)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("batch_size", "expected"), [(1, [1] * 12), (5, [5, 5, 2]), (100_000, [12])]
)
def test_the_batch_that_a_caller_asks_for(
    batch_size: int, expected: list[int], sizes: list[int]
) -> None:
    plain = explained(SMALL, method="drise", masks=12)
    sizes.clear()
    found = explained(SMALL, batch_size, method="drise", masks=12)
    assert sizes == expected
    assert_same_maps(found, plain)


def test_a_batch_too_large_for_memory_is_cut_and_said_once(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = explained(SMALL, method="drise", masks=12)
    sizes.clear()
    made = list[int]()
    smooth = masks.smooth

    def watched(grids: Tensor, *places: Tensor) -> Tensor:
        made.append(len(grids))
        return smooth(grids, *places)

    monkeypatch.setattr(masks, "smooth", watched)
    monkeypatch.setattr(handlers.memory, "free_bytes", lambda _: 30 * MIB)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = explained(SMALL, 100_000, method="drise", masks=12)
        explained(SMALL, 100_000, method="drise", masks=2)
    (said,) = told
    assert "batch_size: 100000 pictures at a time do not fit memory" in str(said.message)
    assert sizes[0] == 1 < sizes[2] < 12  # the first one shows what one takes
    assert made[0] == 2 <= max(made) == max(sizes)  # nor are more masks made than are used
    assert_same_maps(found, plain)


@pytest.mark.parametrize("method", ["drise", "dclose"])
def test_boxes_whose_maps_do_not_fit_memory_go_one_after_the_other(
    method: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = explained(SMALL, method=method, masks=10)
    monkeypatch.setattr(handlers.memory, "free_bytes", lambda _: 0)
    monkeypatch.setattr(masked_pictures, "FEW_BYTES", 0)
    sizes.clear()
    with pytest.warns(UserWarning, match="^max_detections: the maps of 2 boxes at a time") as told:
        found = explained(SMALL, method=method, masks=10)
    assert (len(told), sizes) == (1, [1] * 20)
    assert [each.box for each in found] == [each.box for each in plain]
    assert_same_maps(found, plain)


def test_memory_runs_out_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "fasterrcnn_regnet_small_fpn"
    plain = explained(kind, method="drise", masks=9)
    whole = DetectorOnMasks._of_batch

    def failing(self: DetectorOnMasks, masks: Tensor) -> list[Tensor]:
        if len(masks) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, masks)

    monkeypatch.setattr(DetectorOnMasks, "_of_batch", failing)
    with pytest.warns(UserWarning, match="out of memory with 4 pictures at a time; trying 2"):
        found = explained(kind, method="drise", masks=9)
    for one, other in zip(plain, found, strict=True):
        torch.testing.assert_close(other.heatmap, one.heatmap, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("fields", "name"), [({"target": "box"}, "target"), ({"layer": "pyramid"}, "layer")]
)
@pytest.mark.parametrize("method", ["drise", "dclose"])
def test_what_masks_cannot_explain(method: str, fields: dict[str, Any], name: str) -> None:
    with pytest.raises(RequestError, match=f"^{name}: "):
        explained("fasterrcnn_regnet_small_fpn", method=method, **fields)


def test_a_candidate_that_was_not_reported_has_a_map() -> None:
    (one,) = explained(
        "fasterrcnn_regnet_small_fpn", method="drise", masks=8, box=(20.0, 30.0, 90.0, 100.0)
    )
    assert float(one.heatmap.max()) > 0

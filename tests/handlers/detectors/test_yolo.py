from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from handlers.detectors.layouts import LAYOUTS, Layout
from handlers.detectors.registry import DetectorError
from handlers.detectors.yolo import YOLODetector, YOLOLike
from handlers.explainer import Explainer, ExplainRequest
from handlers.metrics.pointing import energy_in_box
from handlers.schema import RequestError
from tests.conftest import random_picture
from tests.handlers.detectors.yolo_networks import (
    STRIDES,
    CoupledHead,
    DecodingHead,
    DecoupledHead,
    FlatHead,
    Network,
)
from tests.handlers.detectors.yolo_twin import (
    CASES,
    CLASSES,
    SIZE,
    Case,
    Cell,
    cells,
    network_of,
    reported,
)

CATEGORIES = ("cup", "disc", "ring")
# Few boxes each: the twin differentiates one by one.
OPTIONS: dict[str, Any] = {"head": "head", "score": 0.02, "detections": 12}
PICTURE = random_picture(90, 140, 3)


@functools.lru_cache
def explainer_of(name: str, resize: str = "letterbox", mirror: str = "none") -> Explainer:
    case = CASES[name]
    # The networks' statistics are those of values from 0 to 1.
    plain = {"mean": [0] * 3, "std": [255] * 3}
    given = {"size": SIZE, "resize": resize, "mirror": mirror, **plain}
    layout = Layout.named(case.layout, **OPTIONS, **case.fields, input=given)
    return Explainer.from_model(YOLOLike(network_of(case), layout, CLASSES), CATEGORIES)


@functools.lru_cache
def twin_of(name: str) -> tuple[list[Tensor], list[Cell], list[tuple[int, int]]]:
    """The maps (leaves), every candidate, and the detections for PICTURE."""
    explainer, case = explainer_of(name), CASES[name]
    detector = explainer.detector
    assert isinstance(detector, YOLODetector)
    network, tensors = detector.model, detector.prepare(PICTURE).tensors
    with torch.no_grad():
        maps = network.trunk(tensors)
    maps = [each.requires_grad_() for each in maps]
    found = cells(case, network.head(list(maps)))
    layout = detector.layout
    kept = reported(found, layout.score, layout.iou, layout.detections, layout.every_label)
    return maps, found, kept


@pytest.mark.parametrize("name", CASES)
def test_detects_as_the_formulas_say(name: str) -> None:
    explainer = explainer_of(name)
    _, found, kept = twin_of(name)
    detections = explainer.detect([PICTURE])[0]
    assert 3 <= len(detections) == len(kept)
    assert len(set(detections.level)) > 1 or name == "decoded"
    assert detections.candidate.tolist() == [candidate for candidate, _ in kept]
    assert detections.labels.tolist() == [label for _, label in kept]
    scores = torch.stack([found[candidate].scores[label] for candidate, label in kept])
    torch.testing.assert_close(detections.scores, scores.detach(), rtol=1e-4, atol=1e-5)
    # Letterboxed: 90 x 140 becomes 103 x 160 with 12 rows above; bgr or rgb is in the network.
    top = 0 if explainer.detector.layout.input.resize == "corner" else 12  # type: ignore[attr-defined]
    boxes = torch.stack([found[candidate].box.detach() for candidate, _ in kept])
    scale = torch.tensor([160 / 140, 103 / 90] * 2)
    boxes = (boxes - torch.tensor([0, top] * 2)) / scale
    boxes = boxes.clamp(min=0).minimum(torch.tensor([140.0, 90.0] * 2))
    torch.testing.assert_close(detections.boxes, boxes, rtol=1e-4, atol=2e-3)


def scalar(target: str, cell: Cell, label: int, top: float) -> Tensor:
    if target == "class":
        return cell.logits[label]
    if target == "probability":
        return cell.scores[label]
    if target == "objectness":
        assert cell.objectness is not None
        return cell.objectness
    low, high = torch.tensor([0.0, top] * 2), torch.tensor([160.0, top + 103] * 2)
    return cell.box.maximum(low).minimum(high)[("x1", "y1", "x2", "y2").index(target)]


@pytest.mark.parametrize("method", ["odam", "gradcam"])
@pytest.mark.parametrize("target", ["class", "probability", "x2", "objectness"])
@pytest.mark.parametrize("name", CASES)
def test_equals_plain_autograd(name: str, target: str, method: str) -> None:
    explainer = explainer_of(name)
    if target not in explainer.targets:
        assert CASES[name].layout not in ("yolov5", "yolov7", "yolox")
        return
    maps, found, kept = twin_of(name)
    request = ExplainRequest(method=method, target=target, score_threshold=0.0)
    explanations = explainer.explain([PICTURE], request)[0]
    assert len(explanations) == len(kept)
    top = 0.0 if explainer.detector.layout.input.resize == "corner" else 12.0  # type: ignore[attr-defined]
    for explanation, (candidate, label) in zip(explanations, kept, strict=True):
        level = found[candidate].place[0]
        value = scalar(target, found[candidate], label, top)
        (gradient,) = torch.autograd.grad(
            value, maps[level], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        activation = maps[level].detach()[0]
        if method == "odam":
            heat = (gradient[0] * activation).sum(0)
        else:
            heat = torch.einsum("c,chw->hw", gradient[0].mean((1, 2)), activation)
        expected = heat.clamp(min=0)
        tolerance = 1e-3 * float(expected.max()) + 1e-9
        torch.testing.assert_close(explanation.heatmap, expected, rtol=1e-3, atol=tolerance)
        assert explanation.level == f"stride{STRIDES[level]}"


@pytest.mark.parametrize("layer", ["trunk.down.0", "trunk.stem", "pyramid", "head"])
@pytest.mark.parametrize("name", ["yolov5", "yolov8", "yolox"])
def test_other_layers_equal_plain_autograd(name: str, layer: str) -> None:
    explainer, case = explainer_of(name), CASES[name]
    inner = {"yolov5": "head.m.0", "yolov8": "head.branches.1.0.0", "yolox": "head.stems.0"}
    layer = inner[name] if layer == "head" else layer
    detector = explainer.detector
    assert isinstance(detector, YOLODetector)
    network = detector.model
    request = ExplainRequest(method="odam", layer=layer, score_threshold=0.0)
    explanations = explainer.explain([PICTURE], request)[0]
    caught: list[Tensor] = []
    watched = network if layer == "pyramid" else network.get_submodule(layer)

    def catch(module: Any, arguments: Any, output: Any) -> Any:
        caught.append(output)
        return output.clone()  # a module that edits in place may follow

    if layer == "pyramid":
        caught, found, _ = twin_of(name)
    else:
        handle = watched.register_forward_hook(catch)
        raw = network(detector.prepare(PICTURE).tensors)
        handle.remove()
        found = cells(case, raw)
    for explanation, (candidate, label) in zip(explanations, twin_of(name)[2], strict=True):
        gradients = torch.autograd.grad(
            found[candidate].logits[label],
            caught,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        heat: Tensor = sum(  # type: ignore[assignment]
            torch.nn.functional.interpolate(
                gradient * activation.sign(), caught[-1].shape[-2:], mode="bilinear"
            )
            * torch.nn.functional.interpolate(
                activation.abs(), caught[-1].shape[-2:], mode="bilinear"
            )
            for gradient, activation in zip(gradients, caught, strict=True)
        )
        expected = heat.detach()[0].sum(0).clamp(min=0)
        tolerance = 1e-3 * float(expected.max()) + 1e-9
        torch.testing.assert_close(explanation.heatmap, expected, rtol=1e-3, atol=tolerance)


def test_heads_are_differentiated_on_windows_where_that_is_exact() -> None:
    reaches = {name: explainer_of(name).detector.reaches for name in CASES}  # type: ignore[attr-defined]
    assert reaches["yolov5"] == reaches["yolov7"] == [0, 0, 0]
    # Two 3 x 3 convolutions; the coarsest map has 4 rows.
    assert reaches["yolov8"] == reaches["yolov11"] == reaches["rtmdet"] == [2, 2, None]
    assert reaches["yolox"] == [1, 1, None]
    assert reaches["decoded"] == [None, None, None]


@pytest.mark.parametrize("name", CASES)
def test_ties_keep_their_provenance(name: str) -> None:
    case = CASES[name]
    network = network_of(case)
    with torch.no_grad():  # every cell of every level says the same
        for module in network.head.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.zero_()
                if module.bias is not None:
                    module.bias.fill_(-0.3)
    fields = {**OPTIONS, **case.fields, "iou": 0.99, "detections": 40, "input": {"size": SIZE}}
    layout = Layout.named(case.layout, **fields)
    explainer = Explainer.from_model(YOLOLike(network, layout, CLASSES), CATEGORIES)
    detections = explainer.detect([PICTURE])[0]
    assert len(detections) == 40
    assert len(detections.scores.unique()) == 1
    names = zip(detections.candidate.tolist(), detections.labels.tolist(), strict=True)
    assert len(set(names)) == 40
    detector = explainer.detector
    assert isinstance(detector, YOLODetector)
    inputs = detector.prepare(PICTURE)
    found = cells(case, network(inputs.tensors))
    chosen = torch.stack([found[each].box.detach() for each in detections.candidate.tolist()])
    torch.testing.assert_close(detections.boxes, inputs.on_picture(chosen), rtol=1e-4, atol=2e-3)
    levels = [STRIDES[found[each].place[0]] for each in detections.candidate.tolist()]
    assert list(detections.level) == [f"stride{stride}" for stride in levels]


@pytest.mark.parametrize("name", ["yolov5", "yolov8", "rtmdet"])
def test_why_not(name: str) -> None:
    explainer = explainer_of(name)
    explanations = explainer.explain([PICTURE], ExplainRequest(candidates=30))[0]
    assert explanations[0].outcome == "reported as box 0"
    texts = " | ".join(each.outcome for each in explanations)
    assert "suppressed by" in texts or "beyond the limit" in texts
    assert ("counts for" in texts) == (name == "yolov8")


def dot_explainer(resize: str, mirror: str, bgr: bool) -> Explainer:
    """A detector of one bright dot: every convolution adds up what it sees."""
    torch.manual_seed(0)
    network = Network(DecoupledHead([1, 4])).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.fill_(1.0 / module.weight[0].numel())
                if module.bias is not None:
                    module.bias.zero_()
        for branch in network.head.branches[1]:  # type: ignore[index]
            branch[1].weight.zero_()
            branch[1].bias.fill_(0.5)  # distances of half a stride
    given = {
        "size": (128, 160),
        "resize": resize,
        "mirror": mirror,
        "channels": "bgr" if bgr else "rgb",
        "mean": [114] * 3,
        "std": [1] * 3,
    }
    raw = {"activated": False, "training_head": False}
    layout = Layout.named("yolov6", head="head", **raw, input=given)
    return Explainer.from_model(YOLOLike(network, layout, 1), ["dot"])


@pytest.mark.parametrize("mirror", ["none", "horizontal", "vertical", "both"])
@pytest.mark.parametrize("resize", ["letterbox", "corner", "stretch"])
def test_the_heat_lies_on_the_dot(resize: str, mirror: str) -> None:
    explainer = dot_explainer(resize, mirror, bgr=mirror == "both")
    sizes = [(90, 140), (128, 160), (61, 97), (200, 75), (33, 301), (400, 401)]
    for height, width in sizes:
        for across, down in ((0.2, 0.3), (0.5, 0.5), (0.83, 0.71)):
            picture = torch.full((3, height, width), 114, dtype=torch.uint8)
            x, y = round(across * width), round(down * height)
            picture[:, max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4] = 255
            request = ExplainRequest(layer="emitting,trunk.stem.0", max_detections=1)
            explanations = explainer.explain([picture], request)[0]
            frame = explainer.detector.prepare(picture).geometries[0]
            stride = (8 / abs(frame.scale_x), 8 / abs(frame.scale_y))
            for explanation in explanations:
                assert explanation.level == "stride8"
                heat = explanation.heatmap
                row, column = divmod(int(heat.argmax()), heat.shape[1])
                place = explanation.geometry.point_of(column + 0.5, row + 0.5, *heat.shape)
                assert abs(place[0] - x - 0.5) <= stride[0]
                assert abs(place[1] - y - 0.5) <= stride[1]
            # The layout measures boxes from half a cell beside what the cell looks at.
            x1, y1, x2, y2 = explanations[0].box
            assert abs((x1 + x2) / 2 - x) <= 2 * stride[0]
            assert abs((y1 + y2) / 2 - y) <= 2 * stride[1]


@pytest.mark.parametrize("mirror", ["horizontal", "vertical", "both"])
def test_a_mirrored_canvas_gives_the_edges_of_the_picture(mirror: str) -> None:
    plain, flipped = explainer_of("yolov8"), explainer_of("yolov8", mirror=mirror)
    axes = {"horizontal": [2], "vertical": [1], "both": [1, 2]}[mirror]
    # An even margin, so that it is the same on both sides.
    picture = random_picture(102, 160, 5)
    pairs = ((plain, picture.flip(axes)), (flipped, picture))
    there, here = plain.detect([picture.flip(axes)])[0], flipped.detect([picture])[0]
    x1, y1, x2, y2 = there.boxes.unbind(1)
    if mirror != "vertical":
        x1, x2 = 160 - x2, 160 - x1
    if mirror != "horizontal":
        y1, y2 = 102 - y2, 102 - y1
    torch.testing.assert_close(here.boxes, torch.stack([x1, y1, x2, y2], 1), rtol=0, atol=1e-3)
    # Left and right change places, and with them the sign: x1 = 160 - x2.
    other, sign = ("x2", -1) if mirror != "vertical" else ("x1", 1)
    fields: dict[str, Any] = {"score_threshold": 0.0, "save_raw": True}
    own = flipped.explain([picture], ExplainRequest(target="x1", **fields))[0]
    theirs = plain.explain([picture.flip(axes)], ExplainRequest(target=other, **fields))[0]
    for one, two in zip(own, theirs, strict=True):
        assert one.gradient is not None
        assert two.gradient is not None
        torch.testing.assert_close(one.gradient, sign * two.gradient, rtol=1e-3, atol=1e-6)
    # At the picture's border an edge has none.
    assert sum(float(one.gradient.abs().max()) > 0 for one in own if one.gradient is not None) > 3
    request = ExplainRequest(score_threshold=0.0)
    several = zip(*(each.explain([one], request)[0] for each, one in pairs), strict=True)
    energies = torch.tensor([[energy_in_box(one), energy_in_box(two)] for one, two in several])
    assert float(energies.min()) > 0
    torch.testing.assert_close(energies[:, 0], energies[:, 1], rtol=1e-2, atol=1e-3)
    box = here.boxes[2].tolist()
    near = flipped.explain([picture], ExplainRequest(box=tuple(box)))[0][0]
    assert near.outcome == "reported as box 2"


WRONG: dict[str, tuple[str, Any, dict[str, Any], str]] = {
    "categories": (
        "yolov8",
        lambda: DecoupledHead([64, 5], joined=True),
        {},
        r"expected \[B, 67, 16, 20\].*64 boxes \+ 3 classes for 3 categories.*got \[1, 69, 16, 20",
    ),
    "bins": (
        "yolov8",
        lambda: DecoupledHead([64, 3], joined=True),
        {"bins": 8},
        r"expected \[B, 35, 16, 20\].*got \[1, 67, 16, 20\]",
    ),
    "anchors": (
        "yolov5",
        lambda: CoupledHead(8, 3),
        {"anchors": [[[9, 9]], [[9, 9]], [[9, 9]]]},
        r"expected \[B, 8, 16, 20\].*got \[1, 420, 8\]|got .*\[1, 3, 16, 20, 8\]",
    ),
    "strides": (
        "yolov8",
        lambda: DecoupledHead([64, 3], joined=True),
        {"strides": [4, 8, 16]},
        "mean maps of 32 x 40, 16 x 20, 8 x 10; the head head gets 16 x 20, 8 x 10, 4 x 5",
    ),
    "levels": (
        "yolov8",
        lambda: DecoupledHead([64, 3], joined=True),
        {"strides": [8, 16]},
        r"takes a list of \[1, 12, 16, 20\], .*; expected 2 feature maps",
    ),
    "layout": ("yolox", lambda: DecoupledHead([3, 4]), {}, r"5 objectness|1 objectness.*got"),
    "head": ("yolov8", lambda: FlatHead(3), {"head": "neck"}, "no module 'neck'; it has .*head"),
    "inside": ("yolov8", lambda: FlatHead(3), {"head": "trunk"}, "trunk takes .*expected 3"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_layout_that_does_not_fit(wrong: str) -> None:
    name, head, fields, text = WRONG[wrong]
    fields = {"head": "head", "input": {"size": SIZE}, **fields}
    model = YOLOLike(Network(head()).eval(), Layout.named(name, **fields), CLASSES)
    with pytest.raises(DetectorError, match=text):
        Explainer.from_model(model, CATEGORIES)


@pytest.mark.parametrize(
    ("edit", "text"),
    [("inplace", "edits its classes in place"), ("no_grad", r"boxes under torch.no_grad\(\)")],
)
def test_heads_without_a_gradient(edit: str, text: str) -> None:
    head = DecodingHead(CLASSES)
    head.edit = edit
    given = {"size": SIZE, "std": [255] * 3}
    layout = Layout.named("yolox", head="head", boxes="xywh", score=0.0, input=given)
    explainer = Explainer.from_model(YOLOLike(Network(head).eval(), layout, CLASSES), CATEGORIES)
    target = "class" if edit == "inplace" else "x1"
    # D-RISE and D-CLOSE know no edges.
    masks = ["dclose", "drise"] if target == "class" else []
    free = ", ".join(sorted(["ablationcam", "eigencam", "scorecam", *masks]))
    with pytest.raises(RequestError, match=f"allowed: {free}, since .*{text}"):
        explainer.explain([PICTURE], ExplainRequest(target=target))
    request = ExplainRequest(method="eigencam", target=target, score_threshold=0.0)
    assert explainer.explain([PICTURE], request)[0][0].heatmap.max() > 0


def test_case_covers_every_layout() -> None:
    assert {case.layout for case in CASES.values()} == set(LAYOUTS)
    assert isinstance(CASES["yolov5"], Case)

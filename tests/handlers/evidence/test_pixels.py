"""Gradients of the whole network: against its definition, plain autograd of the stock models,
pytorch-grad-cam and Captum."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from captum.attr import GuidedBackprop
from pytorch_grad_cam import FullGrad
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import FrozenBatchNorm2d

from handlers.cam.pixels import fullgrad
from handlers.detectors.registry import build_model
from handlers.evidence import pixels
from handlers.evidence.pixels import Biases, Graph, added, graph_of
from handlers.explainer import Explainer
from handlers.metrics.pointing import energy_in_box
from handlers.schema import ExplainRequest, Explanation, RequestError
from tests.conftest import (
    CATEGORIES,
    DETECTORS,
    calibrated,
    random_picture,
    scene_picture,
    small_model,
)
from tests.handlers.detectors import test_detr, test_yolo
from tests.handlers.test_loading import Scripted, explainer_of, saved
from tests.handlers.whole_model_twin import WholeModelTwin

PICTURE = random_picture(100, 130, seed=2)
METHODS = ("fullgrad", "guided", "guidedgradcam")
ALL = ExplainRequest(score_threshold=0.0, max_detections=2)


class Piecewise(nn.Module):
    """Convolutions with biases, frozen and learned BatchNorms, ReLU in place, two linear layers;
    `shared` runs on two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, 2, 1)
        self.frozen, self.learned = FrozenBatchNorm2d(6), nn.BatchNorm2d(6)
        self.shared, self.relu = nn.Conv2d(6, 6, 1), nn.ReLU(inplace=True)
        self.fc6, self.fc7 = nn.Linear(12, 8), nn.Linear(8, 4)
        for norm in (self.frozen, self.learned):
            for name, tensor in norm.state_dict().items():
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand(6) + (0.5 if name == "running_var" else -0.5))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.relu(self.frozen(self.first(x)))
        coarse = self.relu(self.learned(self.second(fine)))
        pooled = [self.relu(self.shared(each)).amax((2, 3)) for each in (fine, coarse)]
        logits: Tensor = self.fc7(self.relu(self.fc6(torch.cat(pooled, 1))))
        return logits


def test_input_and_bias_terms_add_up_to_the_score() -> None:
    torch.manual_seed(3)
    model, inputs = Piecewise().eval(), torch.randn(1, 3, 12, 16)
    graph = graph_of(model, inputs, lambda x, _: [model(x)[0], model(x)[0, :1] ** 1])
    expected = model(inputs)[0].tolist()
    assert len(set(expected)) == 4
    for row, value in enumerate(expected):
        assert graph.total(0, row) == pytest.approx(value, abs=1e-4)
    assert graph.total(1, 0) == pytest.approx(expected[0], abs=1e-4)


def noted(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """The graphs that are made from now on."""
    graphs: list[Graph] = []

    def make(*given: Any) -> Graph:
        graphs.append(graph_of(*given))
        return graphs[-1]

    monkeypatch.setattr(pixels, "graph_of", make)
    return graphs


@pytest.mark.parametrize(
    ("architecture", "target"),
    [
        ("fasterrcnn_regnet_small_fpn", "class"),
        ("fasterrcnn_regnet_small_fpn", "objectness"),
        pytest.param("retinanet_resnet50_fpn", "class", marks=pytest.mark.full),
        pytest.param("maskrcnn_resnet50_fpn", "mask", marks=pytest.mark.full),
    ],
)
def test_they_do_for_a_box(architecture: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = noted(monkeypatch)
    explainer = Explainer.from_model(small_model(architecture), CATEGORIES)
    fields = {"method": "fullgrad", "target": target, "score_threshold": 0.0, "max_detections": 2}
    explainer.explain([PICTURE], ExplainRequest.from_fields(fields))
    (graph,) = graphs
    for row, value in enumerate(graph.scalars[0].tolist()):
        assert graph.total(0, row) == pytest.approx(value, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.BatchNorm2d(5), (1, 5, 4, 3)),
        (nn.BatchNorm2d(5, affine=False), (1, 5, 4, 3)),
        (FrozenBatchNorm2d(5), (1, 5, 4, 3)),
        (nn.Conv2d(5, 5, 1), (1, 5, 4, 3)),
        (nn.ConvTranspose2d(5, 5, 2, 2), (1, 5, 4, 3)),
        (nn.GroupNorm(1, 5), (1, 5, 4, 3)),
        (LayerNorm2d(5), (1, 5, 4, 3)),
        (nn.LayerNorm(5), (1, 4, 3, 5)),
        (nn.LayerNorm(5), (1, 5, 3, 5)),
        (nn.Linear(5, 5), (1, 4, 3, 5)),
        (nn.Linear(5, 5), (7, 5)),
    ],
)
def test_what_a_module_adds(module: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for each in [*module.parameters(), *module.buffers()]:
            if each.is_floating_point():
                each.copy_(torch.rand(each.shape) + 0.5)
    module.eval().requires_grad_(False)
    leaf, biases, got = torch.zeros(shape, requires_grad=True), Biases(), []
    with biases.watched(module):
        output = module(leaf)
    # Of zeros a module gives what it adds (a norm of the input's own statistics as well).
    gradient = torch.randn(output.shape)
    with biases.sent_to(lambda term, placed: got.append((term, placed))):
        output.backward(gradient)
    ((term, placed),) = got
    assert placed == (len(shape) == 4)
    assert float(term.sum()) == pytest.approx(float((output.detach() * gradient).sum()), abs=1e-4)
    if placed:
        assert len(term) == 5
        assert float(term.sum()) != 0
    assert added(nn.ReLU()) is None


def test_equals_pytorch_grad_cam_up_to_what_is_written_there() -> None:
    # Where every map has the input's size and each channel is stretched by itself.
    torch.manual_seed(1)
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(5, 3),
    ).eval()
    inputs = torch.randn(1, 3, 9, 11)
    with FullGrad(model, []) as peer:
        theirs = torch.from_numpy(peer(inputs.clone(), [ClassifierOutputTarget(2)])[0])

    def each_channel(term: Tensor) -> Tensor:
        flat = term.abs().flatten(1)
        flat = flat - flat.amin(1, keepdim=True)
        return (flat / (1e-7 + flat.amax(1, keepdim=True))).view_as(term).sum(0)

    graph = graph_of(model, inputs, lambda x, _: [model(x)[0]])
    terms: list[Tensor] = []
    gradient = graph.gradient(0, 2, lambda term, placed: terms.append(term) if placed else None)
    assert len(terms) == 3
    ours = sum((each_channel(each) for each in terms), each_channel(gradient * inputs[0]))
    ours = (ours - ours.min()) / (ours.max() - ours.min())
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def stretched(term: Tensor) -> Tensor:
    magnitude = term.abs()
    span = magnitude.max() - magnitude.min()
    zero = magnitude.new_zeros(magnitude.shape[1:])
    return ((magnitude - magnitude.min()) / span).sum(0) if span > 0 else zero


def slow_fullgrad(model: Any, twin: WholeModelTwin, frame: Any, names: Sequence[str]) -> Tensor:
    """Of the best box, one call of one module after the other, on the network input's grid."""
    scalar, tensors = twin.scalar("class", 0), twin.calls["transform"][0][0].tensors
    (gradient,) = torch.autograd.grad(scalar, tensors, retain_graph=True)
    total = stretched((gradient * tensors)[0].detach())
    height, width = total.shape
    for name in names:
        module = model.get_submodule(name)
        bias = module.bias
        if hasattr(module, "running_mean"):
            scale = module.weight / (module.running_var + module.eps).sqrt()
            bias = module.bias - module.running_mean * scale
        for call in twin.calls[name]:
            if call[0, 0].numel() == 1:
                continue
            (own,) = torch.autograd.grad(scalar, call, retain_graph=True, allow_unused=True)
            if own is not None:
                layer = stretched((bias[:, None, None] * own[0]).detach())
                grid = frame.on_samples(*layer.shape)
                total += grid.onto(layer, frame, height, width)
    return total


def biased(model: Any, inside: Sequence[str]) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if name.startswith(tuple(inside))
        and isinstance(module, (nn.Conv2d, nn.BatchNorm2d, FrozenBatchNorm2d, nn.GroupNorm))
        and module.bias is not None
    ]


@pytest.mark.parametrize(
    "architecture",
    [
        "fasterrcnn_regnet_small_fpn",
        pytest.param("retinanet_resnet50_fpn", marks=pytest.mark.full),
        pytest.param("fcos_resnet50_fpn", marks=pytest.mark.full),
        pytest.param("maskrcnn_resnet50_fpn_v2", marks=pytest.mark.full),
    ],
)
def test_a_box_of_the_stock_model_by_plain_autograd(architecture: str) -> None:
    model: Any = small_model(architecture)
    names = biased(model, ["backbone", "head"])
    twin = WholeModelTwin(model, PICTURE, names)
    explainer = Explainer.from_model(model, CATEGORIES)
    (found,) = explainer.explain([PICTURE], everything("fullgrad", max_detections=1))[0]
    assert len(names) > 10
    slow = slow_fullgrad(model, twin, found.geometry, names)
    assert found.heatmap.shape == slow.shape
    assert float((found.heatmap - slow).abs().max()) < 1e-3 * float(slow.max())


def everything(method: str, **fields: Any) -> ExplainRequest:
    return ExplainRequest.from_fields({"method": method, **fields}, ALL)


class OneBox(nn.Module):
    """A RetinaNet's logits of one anchor."""

    def __init__(self, model: Any, anchor: int) -> None:
        super().__init__()
        self.model, self.anchor = model, anchor

    def forward(self, tensors: Tensor) -> Tensor:
        maps = list(self.model.backbone(tensors).values())
        logits: Tensor = self.model.head(maps)["cls_logits"][:, self.anchor]
        return logits


@pytest.mark.filterwarnings("ignore::UserWarning:captum")
def test_guided_equals_captum_on_the_stock_model() -> None:
    model: Any = small_model("retinanet_resnet50_fpn")
    explainer = Explainer.from_model(model, CATEGORIES)
    fields = {"method": "guided", "score_threshold": 0.0, "max_detections": 2}
    found = explainer.explain([PICTURE], ExplainRequest.from_fields(fields))[0]
    twin = WholeModelTwin(model, PICTURE)
    tensors = twin.calls["transform"][0][0].tensors.detach()
    # Captum's hooks refuse modules in place.
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    layered = explainer.explain([PICTURE], everything("guidedgradcam"))[0]
    cams = explainer.explain([PICTURE], everything("gradcam"))[0]
    for each, product, cam in zip(found, layered, cams, strict=True):
        peer = GuidedBackprop(OneBox(plain, twin.candidate(each.index)).eval())
        theirs = peer.attribute(tensors.clone(), target=each.label)[0]
        expected = theirs.abs().amax(0)
        largest = float(expected.max())
        assert largest > 0
        torch.testing.assert_close(each.heatmap, expected, atol=1e-4 * largest, rtol=0)
        upsampled = cam.geometry.onto(cam.heatmap, each.geometry, *expected.shape)
        torch.testing.assert_close(
            product.heatmap,
            expected * upsampled,
            rtol=1e-3,
            atol=1e-4 * float(product.heatmap.max()),
        )


def assert_maps(explained: Sequence[Explanation], method: str) -> None:
    assert explained
    for each in explained:
        assert each.method == method
        assert each.layer == ("emitting" if method == "guidedgradcam" else "input")
        assert bool(each.heatmap.isfinite().all())
        assert float(each.heatmap.min()) >= 0
        assert each.on_picture().shape == PICTURE.shape[1:]
    # Grad-CAM may be negative everywhere; box_score cuts boxes to whole pixels, and counts none
    # that then is another.
    may_be_zero = method == "guidedgradcam" or explained[0].target == "box_score"
    assert may_be_zero or any(bool(each.heatmap.any()) for each in explained)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "architecture",
    [
        name if name == "ssdlite320_mobilenet_v3_large"
        else pytest.param(name, marks=pytest.mark.full)
        for name in DETECTORS
    ],
)  # fmt: skip
def test_every_detector(architecture: str, method: str) -> None:
    explainer = Explainer.from_model(small_model(architecture), CATEGORIES)
    several: list[dict[str, Any]] = [{"target": "probability", "sum_boxes": True}]
    for fields in (*several, {"target": "box"}, {"target": "box_score"}, {"candidates": 1}):
        explained = explainer.explain([PICTURE], everything(method, **fields))[0]
        assert_maps(explained, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "kind", ["yolov5", "yolov8", "detr", "rt_detr", "resnet18", "convnext_tiny"]
)
def test_other_detectors(kind: str, method: str) -> None:
    if kind.startswith("yolo"):
        explainer = test_yolo.explainer_of(kind, mirror="horizontal")
    elif kind.endswith("detr"):
        explainer = test_detr.explainer(kind)
    else:
        torch.manual_seed(0)
        model = build_model(kind, 3, {"size": 64})
        calibrated(model, torch.randn(4, 3, 64, 64))
        explainer = Explainer.from_model(model.eval(), ("a", "b", "c"))
    for fields in ({"target": "class"}, {"sum_boxes": True}, {"target": "probability"}):
        explained = explainer.explain([PICTURE], everything(method, **fields))[0]
        assert_maps(explained, method)


def test_a_box_s_pixels_make_most_of_its_map(demo: Explainer) -> None:
    for method in METHODS:
        explained = demo.explain([scene_picture(0)], ExplainRequest(method))[0]
        for each in explained:
            x1, y1, x2, y2 = each.box
            height, width = each.on_picture().shape
            share = (x2 - x1) * (y2 - y1) / (height * width)
            assert energy_in_box(each) > (1.2 if method == "fullgrad" else 3) * share


def test_one_graph_serves_all_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = noted(monkeypatch)
    explainer = Explainer.from_model(small_model("fasterrcnn_regnet_small_fpn"), CATEGORIES)
    together = explainer.explain([PICTURE], everything("fullgrad"))[0]
    assert len(runs) == 1
    alone = explainer.explain([PICTURE], everything("fullgrad", max_detections=1))[0]
    torch.testing.assert_close(alone[0].heatmap, together[0].heatmap, rtol=1e-3, atol=1e-2)
    assert not torch.allclose(together[0].heatmap, together[1].heatmap, rtol=1e-2)


def test_on_the_pooled_features_guided_gradcam_stays_in_the_box() -> None:
    explainer = Explainer.from_model(small_model("fasterrcnn_regnet_small_fpn"), CATEGORIES)
    inside = explainer.explain([PICTURE], everything("guidedgradcam", layer="roi"))[0]
    cams = explainer.explain([PICTURE], everything("gradcam", layer="roi"))[0]
    for each, cam in zip(inside, cams, strict=True):
        assert not each.geometry.clipped
        upsampled = cam.geometry.onto(cam.heatmap, each.geometry, *each.heatmap.shape)
        assert bool(each.heatmap.any()) == bool(upsampled.any())
        assert not each.heatmap[upsampled == 0].any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "fullgrad", "layer": "pyramid"}, "or none given: fullgrad looks at no layer"),
        ({"method": "guided", "layer": "roi"}, "or none given: guided looks at no layer"),
        ({"method": "guidedgradcam", "save_raw": True}, "false with guidedgradcam"),
        ({"method": "fullgrad", "save_raw": True}, "false with fullgrad"),
    ],
)
def test_requests_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    explainer = Explainer.from_model(small_model("fasterrcnn_regnet_small_fpn"), CATEGORIES)
    with pytest.raises(RequestError, match=message):
        explainer.check(ExplainRequest(**fields))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("detached", "message"), [(True, "since "), (False, "cannot be looked into")]
)
def test_torchscript_is_refused(method: str, detached: bool, message: str) -> None:
    explainer = explainer_of(saved(torch.jit.script(Scripted(detached=detached).eval())))
    with pytest.raises(RequestError, match=f"method: got '{method}'.*{message}"):
        explainer.explain([PICTURE], everything(method))


def test_hooks_are_gone_also_after_an_error() -> None:
    model = Piecewise().eval()

    def fails(x: Tensor, _: Biases) -> list[Tensor]:
        model(x)
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        graph_of(model, torch.zeros(1, 3, 8, 8), fails)
    assert not any(module._forward_hooks for module in model.modules())
    assert fullgrad.__doc__

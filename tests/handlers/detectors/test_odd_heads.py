"""Heads of other people's code that are not what a plain convolutional head is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from handlers.detectors.layouts import Layout
from handlers.detectors.registry import DetectorError
from handlers.detectors.yolo import YOLODetector, YOLOLike
from handlers.explainer import Explainer, ExplainRequest
from handlers.schema import RequestError
from tests.conftest import random_picture
from tests.handlers.detectors.yolo_networks import STRIDES, WIDTH, Trunk

NUMBERS = 7  # 4 of a box, 3 classes
SIZES = {"even": (128, 160), "odd": (416, 416)}
PICTURE = random_picture(90, 140, 3)


class Head(nn.Module):
    """One chain of modules for all levels."""

    def __init__(self, chain: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.chain = chain()
        self.last = nn.Conv2d(WIDTH, NUMBERS, 1)

    def forward(self, maps: list[Tensor]) -> Any:
        return [self.last(self.chain(x)) for x in maps]


class Coupled(Head):
    def forward(self, maps: list[Tensor]) -> Any:
        total = torch.stack([x.mean((2, 3)) for x in maps]).sum(0)[..., None, None]
        return [self.last(self.chain(x) * total) for x in maps]


class Functional(Head):
    def forward(self, maps: list[Tensor]) -> Any:
        weight = torch.linspace(-1, 1, WIDTH * WIDTH * 9).view(WIDTH, WIDTH, 3, 3)
        return [self.last(F.conv2d(x, weight, torch.ones(WIDTH), padding=1)) for x in maps]


class Position(Head):
    """A table for the maps' own size."""

    def __init__(self, chain: Callable[[], nn.Module]) -> None:
        super().__init__(chain)
        self.table = nn.ParameterList([torch.rand(1, WIDTH, 128 // s, 160 // s) for s in STRIDES])

    def forward(self, maps: list[Tensor]) -> Any:
        return [self.last(self.chain(x + y)) for x, y in zip(maps, self.table, strict=True)]


class Sampling(Head):
    """Looks as far as its own offsets say."""

    def forward(self, maps: list[Tensor]) -> Any:
        found = []
        for x in maps:
            batch, _, height, width = x.shape
            grid = F.affine_grid(torch.eye(2, 3).expand(batch, 2, 3), [batch, 1, height, width])
            moved = x[:, :2].permute(0, 2, 3, 1) * 0.4
            found.append(self.last(F.grid_sample(x, grid + moved, align_corners=False)))
        return found


class Every(nn.Module):
    """Stride 2 and back: what belongs together depends on the cell's place."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(WIDTH, WIDTH, 1, 2)
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.interpolate(self.down(x), x.shape[-2:]))
        return y


def conv(**options: Any) -> nn.Module:
    return nn.Conv2d(WIDTH, WIDTH, **{"kernel_size": 3, "padding": 1, **options})


HEADS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Head(conv),
    "dilated": lambda: Head(lambda: conv(dilation=2, padding=2)),
    "depthwise": lambda: Head(lambda: conv(groups=WIDTH)),
    "reflect": lambda: Head(lambda: conv(padding_mode="reflect")),
    "group norm": lambda: Head(lambda: nn.Sequential(conv(), nn.GroupNorm(3, WIDTH))),
    "pool": lambda: Head(lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), conv())),
    "valid": lambda: Head(lambda: nn.Sequential(conv(padding=0), nn.ZeroPad2d(1))),
    "every other": lambda: Head(Every),
    "coupled": lambda: Coupled(conv),
    "functional": lambda: Functional(conv),
    "position": lambda: Position(conv),
    "sampling": lambda: Sampling(conv),
    "deformable": lambda: Head(lambda: Deformable()),
}


class Deformable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(WIDTH, 18, 1)
        self.conv = torchvision.ops.DeformConv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x, self.offset(x))
        return y


class Net(nn.Module):
    def __init__(self, head: nn.Module, gain: float = 5.0) -> None:
        super().__init__()
        self.trunk, self.head, self.gain = Trunk(), head, gain

    def forward(self, x: Tensor) -> Any:
        return self.head([each * self.gain for each in self.trunk(x)])


def explainer_of(network: nn.Module, size: tuple[int, int], **fields: Any) -> Explainer:
    fields = {"head": "head", "activated": False, "training_head": False, **fields}
    layout = Layout.named("yolov6", score=0.0, iou=0.99, **fields, input={"size": size})
    return Explainer.from_model(YOLOLike(network.eval(), layout, 3), ["a", "b", "c"])


def spread(network: Net) -> Net:
    """With statistics of their own, so that nothing fades on the way."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.trunk(torch.rand(2, 3, 128, 160))
    return network


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", HEADS)
def test_whatever_a_head_does_its_maps_equal_plain_autograd(name: str, size: str) -> None:
    torch.manual_seed(1)
    if name == "position" and size == "odd":
        return  # it has one size
    network = spread(Net(HEADS[name]()))
    explainer = explainer_of(network, SIZES[size])
    detector = explainer.detector
    assert isinstance(detector, YOLODetector)
    found = explainer.explain([PICTURE], ExplainRequest(candidates=12))[0]
    several = explainer.explain([PICTURE], ExplainRequest(candidates=12, layer="head.last"))[0]
    with torch.no_grad():
        maps = detector.split.features(detector.prepare(PICTURE).tensors)
    leaves = [each.clone().requires_grad_() for each in maps]
    inner: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> None:
        output.retain_grad()
        inner.append(output)

    handle = network.head.last.register_forward_hook(keep)  # type: ignore[union-attr]
    outputs = network.head(list(leaves))
    handle.remove()
    raw = torch.cat([each[0].flatten(1).T for each in outputs])
    counts = [each.shape[-2] * each.shape[-1] for each in leaves]
    for explanation, last in zip(found, several, strict=True):
        # Unlike the boxes, the scores say which candidate it is.
        scores = raw[:, :3].sigmoid()
        place, label = divmod(int((scores - explanation.score).abs().argmin()), 3)
        level = detector.level_names().index(explanation.level)
        assert sum(counts[:level]) <= place < sum(counts[: level + 1])
        wanted = [leaves[level], inner[level]]
        gradients = torch.autograd.grad(raw[place, label], wanted, retain_graph=True)
        for got, activation, gradient in zip((explanation, last), wanted, gradients, strict=True):
            expected = (activation * gradient)[0].sum(0).clamp(min=0).detach()
            tolerance = 1e-3 * float(expected.max()) + 1e-9
            torch.testing.assert_close(got.heatmap, expected, rtol=1e-3, atol=tolerance)


def test_boxes_together_on_a_module_that_levels_share() -> None:
    torch.manual_seed(1)
    explainer = explainer_of(spread(Net(Head(conv))), SIZES["even"])
    request: dict[str, Any] = {"candidates": 1, "layer": "head.chain"}
    alone = explainer.explain([PICTURE], ExplainRequest(**request))[0][0]
    together = explainer.explain([PICTURE], ExplainRequest(**request, sum_boxes=True))[0][0]
    assert float(alone.heatmap.max()) > 0
    torch.testing.assert_close(together.heatmap, alone.heatmap, rtol=1e-3, atol=1e-6)


class Extra(Net):
    """The head takes something besides the maps."""

    def __init__(self, extra: Any, keyword: bool = False) -> None:
        super().__init__(Taking())
        self.extra, self.keyword = extra, keyword

    def forward(self, x: Tensor) -> Any:
        maps = self.trunk(x)
        return self.head(maps=maps) if self.keyword else self.head(maps, self.extra)


class Taking(Head):
    def __init__(self) -> None:
        super().__init__(conv)

    def forward(self, maps: list[Tensor], extra: Any = 1.0) -> Any:
        return [self.last(self.chain(x * extra)) for x in maps]


@pytest.mark.parametrize(("extra", "keyword"), [(2.0, False), (None, True)])
def test_other_arguments_of_a_head(extra: Any, keyword: bool) -> None:
    explainer = explainer_of(Extra(extra, keyword), SIZES["even"])
    assert explainer.explain([PICTURE], ExplainRequest(candidates=1))[0]


def test_other_tensors_for_a_head_are_refused() -> None:
    with pytest.raises(DetectorError, match=r"takes a list of .*, \[1\]; expected 3 feature maps"):
        explainer_of(Extra(torch.ones(1)), SIZES["even"])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_network_without_a_gradient_before_its_head(mode: Any) -> None:
    network = spread(Net(Head(conv)))
    network.forward = mode()(network.forward)  # type: ignore[method-assign]
    explainer = explainer_of(network, SIZES["even"])
    assert float(explainer.explain([PICTURE], ExplainRequest(candidates=1))[0][0].heatmap.max()) > 0
    allowed = "allowed: ablationcam, eigencam, scorecam, since the network computes its fea"
    with pytest.raises(RequestError, match=allowed):
        explainer.explain([PICTURE], ExplainRequest(layer="trunk.stem", candidates=1))
    request = ExplainRequest(layer="trunk.stem", candidates=1, method="eigencam")
    assert float(explainer.explain([PICTURE], request)[0][0].heatmap.max()) > 0


class Decoded(Head):
    """Boxes of some thousand pixels, scores through a sigmoid."""

    def forward(self, maps: list[Tensor]) -> Any:
        raw = [self.last(self.chain(x)) for x in maps]
        return [torch.cat([x[:, :3].sigmoid(), 5000 + x[:, 3:] * 0], 1) for x in raw]


def test_decoded_boxes_may_be_of_any_size() -> None:
    """Random weights give such, and nobody would have them decoded once more."""
    network = spread(Net(Decoded(conv)))
    explainer = explainer_of(network, SIZES["even"], boxes="xywh", activated=True)
    assert len(explainer.detect([PICTURE])[0]) > 0


@pytest.mark.parametrize(
    ("head", "fields", "text"),
    [
        (Decoded, {}, "activated: false does not fit: the head's scores all lie from 0 to 1"),
        (Head, {"activated": True}, "activated: true does not fit: the head's scores do not all"),
        (Decoded, {"activated": True}, "the median box of a blank picture is .* decoded already"),
    ],
)
def test_decoded_where_it_should_be_raw(head: Any, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(DetectorError, match=text):
        explainer_of(spread(Net(head(conv))), SIZES["even"], **fields)

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handlers.detectors.layouts import Layout
from handlers.detectors.registry import DetectorError
from handlers.detectors.yolo import YOLOLike
from handlers.explainer import Explainer, ExplainRequest
from handlers.loading import ModelSource, load_model
from handlers.schema import RequestError
from tests.conftest import random_picture
from tests.handlers.detectors.yolo_networks import STRIDES, WIDTH, DecoupledHead, Network, Trunk

SIZE = (128, 160)
PICTURE = random_picture(90, 140, 3)
LAYOUT: dict[str, Any] = {
    "layout": "yolov6",
    "activated": False,
    "training_head": False,
    "head": "head",
    "features": "features",
    "score": 0.0,
    "input": {"size": SIZE},
}
SOURCE = ModelSource("yolov6", 3, layout=LAYOUT, network="torchscript")
REQUEST = ExplainRequest(score_threshold=0.0, max_detections=5)


class Apart(nn.Module):
    """Its two halves as methods, as a module has to be that is traced."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.trunk(x))

    def head(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Any:
        return self.network.head([fine, middle, coarse])

    def forward(self, x: Tensor) -> Any:
        return self.head(*self.features(x))


class Scripted(nn.Module):
    """The same in what TorchScript understands."""

    def __init__(self, detached: bool = False) -> None:
        super().__init__()
        self.features = Trunk()
        self.predict = nn.ModuleList([nn.Conv2d(WIDTH, 7, 3, padding=1) for _ in STRIDES])
        self.detached = detached

    @torch.jit.export
    def head(self, maps: list[Tensor]) -> list[Tensor]:
        found: list[Tensor] = []
        for level, module in enumerate(self.predict):
            y = module(maps[level])
            found.append(y.detach() if self.detached else y)
        return found

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.head(self.features(x))


def saved(module: Any) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


def explainer_of(torchscript: bytes) -> Explainer:
    return Explainer.from_model(load_model(SOURCE, {}, torchscript), ["a", "b", "c"])


def same(one: Explainer, two: Explainer) -> None:
    there, here = (each.explain([PICTURE], REQUEST)[0] for each in (one, two))
    assert len(there) == len(here) == 5
    for first, second in zip(there, here, strict=True):
        assert first.box == pytest.approx(second.box, abs=1e-3)
        tolerance = 1e-3 * float(first.heatmap.max())
        torch.testing.assert_close(first.heatmap, second.heatmap, rtol=1e-3, atol=tolerance)


@pytest.mark.filterwarnings("ignore")
def test_traced_equals_eager() -> None:
    torch.manual_seed(3)
    network = Network(DecoupledHead([3, 4])).eval()
    x = torch.rand(1, 3, *SIZE)
    apart = Apart(network)
    traced = torch.jit.trace_module(apart, {"features": x, "head": apart.features(x)})
    layout = Layout.named(**{**LAYOUT, "features": ""})
    eager = Explainer.from_model(YOLOLike(network, layout, 3), ["a", "b", "c"])
    same(eager, explainer_of(saved(traced)))
    # Traced as a whole: once saved, the modules inside can be called.
    whole = torch.jit.trace(network, x)
    fields = {**LAYOUT, "features": "trunk"}
    source = replace(SOURCE, layout=fields)
    same(eager, Explainer.from_model(load_model(source, {}, saved(whole)), ["a", "b", "c"]))
    with pytest.raises(DetectorError, match=r"cannot be called. Save it, and load that; or trace"):
        Explainer.from_model(YOLOLike(whole, Layout.named(**fields), 3), ["a", "b", "c"])


@pytest.mark.filterwarnings("ignore")
def test_scripted_equals_eager() -> None:
    torch.manual_seed(3)
    network = Scripted().eval()
    eager = Explainer.from_model(YOLOLike(network, Layout.named(**LAYOUT), 3), ["a", "b", "c"])
    scripted = explainer_of(saved(torch.jit.script(network)))
    same(eager, scripted)
    with pytest.raises(RequestError, match=r"layer: got 'features.stem, which gives no"):
        scripted.explain([PICTURE], ExplainRequest(layer="features.stem"))


@pytest.mark.filterwarnings("ignore")
def test_a_graph_without_a_gradient_names_the_methods_that_work() -> None:
    explainer = explainer_of(saved(torch.jit.script(Scripted(detached=True).eval())))
    with pytest.raises(
        RequestError, match=r"allowed: .*eigencam, scorecam, since the classes in the Torch"
    ):
        explainer.explain([PICTURE], REQUEST)
    found = explainer.explain([PICTURE], ExplainRequest(method="eigencam", score_threshold=0.0))
    assert float(found[0][0].heatmap.max()) > 0
    assert len(explainer.detect([PICTURE])[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("features", "text"),
    [
        ("", "features: missing; a TorchScript module runs no hooks"),
        ("neck", "features: the network has no module 'neck'; it has"),
    ],
)
def test_what_a_traced_network_needs(features: str, text: str) -> None:
    network = Network(DecoupledHead([3, 4])).eval()
    traced = torch.jit.trace(Apart(network), torch.rand(1, 3, *SIZE), strict=False)
    layout = {**LAYOUT, "features": features, "head": "network.head"}
    source = ModelSource("yolov6", 3, layout=layout, network="torchscript")
    with pytest.raises(DetectorError, match=text):
        Explainer.from_model(load_model(source, {}, saved(traced)), ["a", "b", "c"])


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (SOURCE, "not TorchScript, or damaged"),
        (ModelSource("yolov6", 3, layout=LAYOUT), "there is no model file that defines it"),
        (
            ModelSource(
                "yolov6", 3, layout=LAYOUT, network={"name": "N"}, model_file=("n.py", b"x = 2")
            ),
            "network: unknown .'name'.; expected class and arguments",
        ),
    ],
)
def test_what_cannot_be_loaded(source: ModelSource, text: str) -> None:
    with pytest.raises(DetectorError, match=text):
        load_model(source, {}, b"no zip")

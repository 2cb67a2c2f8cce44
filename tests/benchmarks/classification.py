"""Grad-CAM of classifiers, batches of 32, against pytorch-grad-cam, torchcam and Captum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from handlers.detectors.classifier import ClassifierDetector
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest, Explanation
from tests.benchmarks.harness import (
    Goal,
    Row,
    Settings,
    Work,
    alternate,
    difference,
    equal,
    middle,
    ratios,
    spread,
)
from tests.benchmarks.peers import before_stretching
from tests.conftest import calibrated, random_picture

# Those that the README of Grad-CAM.pytorch shows.
NETWORKS = (
    *("vgg16", "vgg19", "resnet50", "resnet101", "inception_v3"),
    *("densenet121", "mobilenet_v2", "shufflenet_v2_x1_0"),
)
BATCH = 32
CLASSES = 1000


def _network(name: str) -> nn.Module:
    """With random weights that let something through."""
    torch.manual_seed(0)
    model = build_model(name, CLASSES)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        size = int(getattr(model, "transform").crop_size[0])  # noqa: B009
        batch = torch.stack([random_picture(size, size, seed) for seed in range(4)]) / 255
        calibrated(model, batch)
    return model.eval()


def _run(settings: Settings) -> Iterator[Row]:
    networks = NETWORKS[-2:] if settings.tiny else NETWORKS
    everything: list[float] = []
    for name in networks:
        for row in _of_network(name, settings):
            if "pytorch-grad-cam" in row.measure:
                everything.append(row.value)
            yield row
    if everything:
        yield Row(
            case=f"median of {len(everything)} networks",
            measure="times faster than pytorch-grad-cam",
            value=middle(everything),
            spread=spread(everything),
            goal=Goal(1.5, at_most=False),
        )


def _of_network(name: str, settings: Settings) -> Iterator[Row]:
    model = _network(name)
    explainer = Explainer.from_model(
        model, [str(label) for label in range(CLASSES)], settings.device
    )
    detector = explainer.detector
    assert isinstance(detector, ClassifierDetector)
    layer = detector.stage.layer.name
    number = 2 if settings.tiny else BATCH
    # Already of the network's size, so that both resize nothing.
    pictures = [random_picture(256, 256, seed) for seed in range(number)]
    explained: list[Explanation] = []

    def prepared() -> Tensor:
        return torch.stack([detector.transform(each.to(settings.device)) for each in pictures])

    def ours() -> None:
        request = ExplainRequest(method="gradcam")
        found = explainer.explain(pictures, request, batch_size=number)
        explained[:] = [each for own in found for each in own]
        for each in explained:
            each.on_picture()  # the peer gives maps of the picture's size

    sides: dict[str, Callable[[], Any]] = {"ours": ours}
    native: dict[str, Tensor] = {}
    grad_cam = _pytorch_grad_cam(model, layer, prepared, native)
    sides["pytorch_grad_cam"] = grad_cam
    for peer, make in (("torchcam", _torchcam), ("captum", _captum)):
        try:
            sides[peer] = make(model, layer, prepared, native)
        except ModuleNotFoundError:
            print(f"  without {peer}; pip install '.[bench]'")
    seconds = alternate(settings, **sides)
    for side in [each for each in sides if each != "ours"]:
        differences = [
            difference(one.heatmap, other.clamp(min=0))
            for one, other in zip(explained, native[side], strict=True)
        ]
        times = ratios(seconds[side], seconds["ours"])
        peer = side.replace("_", "-")
        yield Row(
            case=f"{name}, batch of {number}",
            measure=f"times faster than {peer}",
            value=middle(times),
            spread=spread(times),
            ours=middle(seconds["ours"]),
            other=middle(seconds[side]),
            goal=Goal(1, at_most=False) if side == "pytorch_grad_cam" else None,
            same=equal(max(differences)),
            note=(
                "Both sides prepare the same uint8 pictures, by the same transform, and explain the"
                " best class at the same layer. pytorch-grad-cam gives maps of the network input's"
                " size, so ours are enlarged to the picture's; torchcam's and Captum's stay as"
                " small as they are. Captum is told the class, which a run of its own finds."
            ),
        )


@contextmanager
def _copied(layer: nn.Module) -> Iterator[None]:
    """The network goes on with a copy of the layer's output: otherwise DenseNet's in-place ReLU
    overwrites what the peers' hooks have seen."""
    handle = layer.register_forward_hook(lambda module, given, output: output.clone())
    try:
        yield
    finally:
        handle.remove()


def _pytorch_grad_cam(
    model: nn.Module, layer: str, prepared: Callable[[], Tensor], native: dict[str, Tensor]
) -> Callable[[], None]:
    from pytorch_grad_cam import GradCAM

    module = model.get_submodule(layer)

    def run() -> None:
        with GradCAM(model, [module]) as cam, _copied(module):
            kept = before_stretching(cam)
            cam(prepared(), None)
        (native["pytorch_grad_cam"],) = kept

    return run


def _torchcam(
    model: nn.Module, layer: str, prepared: Callable[[], Tensor], native: dict[str, Tensor]
) -> Callable[[], None]:
    from torchcam.methods import GradCAM

    def run() -> None:
        with GradCAM(model, layer) as cam, _copied(model.get_submodule(layer)):
            scores = model(prepared())
            (maps,) = cam(scores.argmax(1).tolist(), scores, normalized=False)
            native["torchcam"] = maps.detach().cpu()

    return run


def _captum(
    model: nn.Module, layer: str, prepared: Callable[[], Tensor], native: dict[str, Tensor]
) -> Callable[[], None]:
    from captum.attr import LayerGradCam

    module = model.get_submodule(layer)

    def run() -> None:
        batch = prepared()
        with torch.no_grad():
            best = model(batch).argmax(1)
        with _copied(module):
            maps = LayerGradCam(model, module).attribute(batch, best, relu_attributions=True)
        native["captum"] = maps.detach()[:, 0].cpu()

    return run


WORK = Work("Classification, Grad-CAM, against pytorch-grad-cam, torchcam and Captum", _run)

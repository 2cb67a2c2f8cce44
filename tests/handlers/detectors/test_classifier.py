"""Classifiers against torchvision itself, pytorch-grad-cam and Captum."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor
from torchvision import models

from archives.building.build import BuildOptions, build
from handlers.detectors.classifier import CLASSIFIERS, ClassifierDetector
from handlers.detectors.registry import DetectorError, build_model, detector_for
from handlers.explainer import Explainer, ExplainRequest
from handlers.images import PictureError
from handlers.schema import Explanation, RequestError
from tests.conftest import calibrated, random_picture

NAMES = ("cat", "dog", "bird", "fish", "cow", "horse", "sheep")
PICTURE = random_picture(120, 150, seed=3)
# Of each network the pixels a side, the layer that is explained by itself, and another.
EIGHT = {
    "vgg16": (64, "features.29", "features.16"),
    "vgg19": (64, "features.35", "features.27"),
    "resnet50": (96, "layer4", "layer3.5"),
    "resnet101": (64, "layer4", "layer2"),
    "densenet121": (96, "features", "features.denseblock3"),
    "inception_v3": (144, "Mixed_7c", "Mixed_6a"),
    "mobilenet_v2": (96, "features", "features.13"),
    "shufflenet_v2_x1_0": (96, "conv5", "stage3"),
}
# One of each other family.
OTHERS = {
    "alexnet": (96, "features.11"),
    "convnext_tiny": (64, "features"),
    "efficientnet_b0": (64, "features"),
    "googlenet": (64, "inception5b"),
    "mnasnet0_5": (64, "layers"),
    "mobilenet_v3_small": (64, "features"),
    "regnet_y_400mf": (64, "trunk_output"),
    "squeezenet1_1": (64, "classifier.2"),
}


def classifier(architecture: str, size: int | None) -> Explainer:
    """With random weights, and statistics of real activations: without them they fade away."""
    torch.manual_seed(5)
    options: dict[str, Any] = {} if size is None else {"size": size}
    if architecture in ("inception_v3", "googlenet"):
        options["aux_logits"] = False
    model = build_model(architecture, len(NAMES), options)
    transform = model.get_submodule("transform")
    pictures = [transform(random_picture(120, 150, seed)) for seed in range(4)]
    calibrated(model, torch.stack(pictures))
    # The references need no gradients of weights, which take most of their time.
    return Explainer.from_model(model.eval().requires_grad_(False), NAMES)


@dataclass(frozen=True)
class Case:
    """A classifier, the layer that it explains by itself, and another."""

    explainer: Explainer
    layer: str
    earlier: str

    @property
    def model(self) -> Any:
        return self.explainer.detector.model

    def inputs(self) -> Tensor:
        return self.explainer.detector.prepare(PICTURE).tensors

    def explain(self, **fields: Any) -> Explanation:
        (found,) = self.explainer.explain([PICTURE], ExplainRequest(**fields))[0]
        return found


@pytest.fixture(scope="module", params=EIGHT)
def case(request: pytest.FixtureRequest) -> Case:
    size, layer, earlier = EIGHT[request.param]
    return Case(classifier(request.param, size), layer, earlier)


@pytest.fixture(scope="module", params=EIGHT)
def full_case(request: pytest.FixtureRequest) -> Case:
    _, layer, earlier = EIGHT[request.param]
    return Case(classifier(request.param, None), layer, earlier)


def pytorch_grad_cam(kind: type[BaseCAM], case: Case, layer: str, label: int) -> NDArray[Any]:
    """Its map [h, w] before it resizes and normalises.

    Its Grad-CAM++ adds 1e-6 to a denominator of about g^2, which drowns small gradients; g times
    1e3 and A divided by 1e3 give the same weights, times 1e3, with an epsilon that does not count.
    It has no ReLU around sum(A), which matters for maps that are signed.
    """
    module = case.model.get_submodule(layer)
    with kind(case.model, [module]) as cam:
        # What goes on is a copy: a ReLU in place would change what was caught.
        handle = module.register_forward_hook(lambda _, __, output: output.clone())
        cam(case.inputs().requires_grad_(), [ClassifierOutputTarget(label)])
        handle.remove()
        caught = cam.activations_and_grads
        activation, gradient = caught.activations[0].numpy(), caught.gradients[0].numpy()
        unit = 1e3 if kind is GradCAMPlusPlus else 1.0
        seen = np.maximum(activation, 0) / unit
        weights = cam.get_cam_weights(None, module, None, seen, gradient * unit) / unit
    heat: NDArray[Any] = (weights[:, :, None, None] * activation).sum(1)[0].clip(0)
    return heat


def captum(case: Case, layer: str, label: int) -> NDArray[Any]:
    found = LayerGradCam(case.model, case.model.get_submodule(layer)).attribute(
        case.inputs(), label, relu_attributions=True
    )
    heat: NDArray[Any] = found[0, 0].detach().numpy()
    return heat


def assert_equal(found: Tensor, expected: NDArray[Any]) -> None:
    assert expected.max() > 0
    np.testing.assert_allclose(found / expected.max(), expected / expected.max(), atol=1e-4)


def assert_maps_equal(case: Case) -> None:
    for layer, name, category in ((None, case.layer, None), (case.earlier, case.earlier, "bird")):
        found = case.explain(layer=layer, category=category, method="gradcam")
        assert_equal(found.heatmap, captum(case, name, found.label))
        assert_equal(found.heatmap, pytorch_grad_cam(GradCAM, case, name, found.label))
        plus = case.explain(layer=layer, category=category, method="gradcam++")
        assert_equal(plus.heatmap, pytorch_grad_cam(GradCAMPlusPlus, case, name, found.label))


def test_maps_are_those_of_captum_and_pytorch_grad_cam(case: Case) -> None:
    assert_maps_equal(case)


@pytest.mark.full
def test_maps_at_full_size(full_case: Case) -> None:
    assert_maps_equal(full_case)


def test_classes_and_scores_are_the_networks(case: Case) -> None:
    with torch.no_grad():
        logits = case.model(case.inputs())
    (found,) = case.explainer.detect([PICTURE])
    scores, labels = logits[0].softmax(0).sort(descending=True)
    torch.testing.assert_close(found.scores, scores, atol=1e-6, rtol=0)
    assert found.labels.tolist() == labels.tolist()
    assert set(found.level) == {case.layer}


@pytest.mark.parametrize("architecture", OTHERS)
def test_other_families_are_cut_where_their_convolutions_end(architecture: str) -> None:
    size, layer = OTHERS[architecture]
    explainer = classifier(architecture, size)
    inputs = explainer.detector.prepare(PICTURE)
    with torch.no_grad():
        features = explainer.detector.features(inputs)
        (raw,) = explainer.detector.score(features, explainer.detector.propose(features))
        torch.testing.assert_close(raw.logits, explainer.detector.model(inputs.tensors))
    assert list(features.maps) == [layer]
    (found,) = explainer.explain([PICTURE])[0]
    assert found.heatmap.shape == features.maps[layer].shape[-2:]


@pytest.fixture(scope="module")
def small() -> Explainer:
    return classifier("resnet18", 64)


def test_by_itself_the_best_class_is_explained_by_gradcam(small: Explainer) -> None:
    (found,) = small.explain([PICTURE])[0]
    (detections,) = small.detect([PICTURE])
    assert (found.method, found.layer, found.level) == ("gradcam", "emitting", "layer4")
    assert found.label == detections.labels[0]
    assert found.score == pytest.approx(float(detections.scores[0]))
    assert found.category == NAMES[found.label]


def test_every_class_can_be_explained_whatever_it_scores(small: Explainer) -> None:
    model = copy.deepcopy(small.detector.model)
    model.get_parameter("fc.bias")[4] = -1e4  # a probability of zero
    explainer = Explainer.from_model(model, NAMES)
    (found,) = explainer.explain([PICTURE], ExplainRequest("gradcam", category="cow"))[0]
    assert (found.category, found.score, found.index) == ("cow", 0.0, 6)
    assert found.heatmap.max() > 0
    best = explainer.explain([PICTURE], ExplainRequest("gradcam", candidates=2))[0]
    assert [each.outcome for each in best] == ["reported as box 0", "reported as box 1"]


def test_a_batch_gives_what_each_picture_gives_alone(small: Explainer) -> None:
    pictures = [random_picture(90, 160, seed) for seed in range(3)]
    together = small.explain(pictures)
    for picture, (found,) in zip(pictures, together, strict=True):
        (alone,) = small.explain([picture])[0]
        assert found.category == alone.category
        torch.testing.assert_close(found.heatmap, alone.heatmap)


def test_the_box_is_what_the_network_saw_and_there_is_no_heat_off_it(small: Explainer) -> None:
    picture = random_picture(100, 200)
    (found,) = small.explain([picture])[0]
    # 146 x 73 pixels (256 / 224 * 64 = 73), cropped to 64 x 64 from 41 and 4 on (73 / 2 rounds to
    # even).
    x1, y1, x2, y2 = found.box
    scale = 100 / 73
    assert found.box == pytest.approx((41 * scale, 4 * scale, 105 * scale, 68 * scale), abs=1e-3)
    heat = torch.nonzero(found.on_picture())
    assert heat.amin(0).tolist() >= [round(y1), round(x1)]
    assert heat.amax(0).tolist() <= [round(y2), round(x2)]


@pytest.mark.parametrize(("kind", "side"), [(models.inception_v3, 299), (models.resnet18, 224)])
def test_a_model_without_a_transform(kind: Any, side: int) -> None:
    keywords = {"init_weights": False} if side == 299 else {}
    detector = detector_for(kind(weights=None, num_classes=3, **keywords).eval())
    assert detector.prepare(PICTURE).tensors.shape == (1, 3, side, side)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "COCO_V1"}, "preset 'COCO_V1'; expected one of IMAGENET1K_V1"),
        ({"resize": "squash"}, "resize 'squash'; expected one of crop, stretch"),
        ({"size": "64"}, "size '64'; expected a whole number"),
        ({"min_size": 64}, "alexnet cannot be built: .*min_size"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        build_model("alexnet", 3, options)


def test_a_network_that_cannot_be_cut() -> None:
    model = build_model("alexnet", 3, {"size": 16})
    with pytest.raises(DetectorError, match="cannot take pictures of 16 pixels a side"):
        detector_for(model)

    class Doubting(models.ResNet):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = super().forward(x)
            return logits if logits.sum() > 0 else -logits

    doubting = Doubting(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3).eval()
    with pytest.raises(DetectorError, match="Doubting decides by its pictures"):
        detector_for(doubting)

    class Skipping(models.ResNet):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = super().forward(x)
            return logits + x.mean((1, 2, 3))[:, None]

    skipping = Skipping(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3).eval()
    with pytest.raises(DetectorError, match="has no module whose output"):
        detector_for(skipping)


def test_a_picture_that_is_too_narrow(small: Explainer) -> None:
    with pytest.raises(PictureError, match=r"18000 x 1 pixels is too narrow.* stretch"):
        small.explain([torch.zeros(3, 1, 18000, dtype=torch.uint8)])


def test_layers_of_backbone_and_head_and_those_that_are_none(small: Explainer) -> None:
    preview = small.preview()
    assert re.search(r"^\* layer3 .*1 x 256 x 4 x 4$", preview, re.M)
    assert re.search(r"^\* avgpool", preview, re.M)
    assert re.search(r"^  fc .*1 x 7$", preview, re.M)
    with pytest.raises(RequestError, match=r"layer: got 'fc, which gives \[1, 7\]'"):
        small.explain([PICTURE], ExplainRequest("gradcam", layer="fc"))


def test_its_box_has_no_gradient(small: Explainer) -> None:
    with pytest.raises(RequestError, match="draws no box"):
        small.explain([PICTURE], ExplainRequest("gradcam", target="x1"))
    (of_function,) = small.explain(
        [PICTURE], ExplainRequest("gradcam", target=lambda outputs: outputs["logits"][:, 2])
    )[0]
    (bird,) = small.explain([PICTURE], ExplainRequest("gradcam", category="bird"))[0]
    torch.testing.assert_close(of_function.heatmap, bird.heatmap)


def test_an_archive_names_classes_without_a_background(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    options = BuildOptions(
        detector="squeezenet1_1",
        weights="random",
        name="small",
        version="1.0",
        export_path=tmp_path,
        categories=tmp_path / "names.txt",
        options={"size": 96, "resize": "stretch"},
        golden_sample=False,
    )
    explainer = Explainer.from_archive(build(options))
    assert explainer.categories == NAMES
    (found,) = explainer.explain([PICTURE])[0]
    assert found.box == pytest.approx((0, 0, 150, 120), abs=1e-3)
    assert found.method == "gradcam"


@pytest.mark.full
@pytest.mark.parametrize("architecture", CLASSIFIERS)
def test_every_classifier_is_built_and_cut(architecture: str) -> None:
    if "128gf" in architecture:
        pytest.skip("its weights alone take 2.6 GB")
    model = build_model(architecture, 3, {"size": 128} if architecture != "inception_v3" else {})
    assert isinstance(detector_for(model), ClassifierDetector)

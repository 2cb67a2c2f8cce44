"""Every architecture, method, target and layer against plain autograd of the stock model."""

from __future__ import annotations

import functools
import gc
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from handlers.tap import NonFiniteError
from tests.conftest import CATEGORIES, DETECTORS, random_picture, small_model
from tests.handlers.slow_twin import FORMULAS
from tests.handlers.whole_model_twin import EDGES, SEVERAL, WholeModelTwin, box_score_by_hand

PICTURE = random_picture(100, 130, seed=2)
BOXES = 2
METHODS = sorted(FORMULAS)
FASTER = ("class", "probability", *EDGES, "width", "height", "box", "combined")
EXTRA = {
    "mask": ("objectness", "mask"),
    "keypoint": ("objectness", "keypoint", "keypoint:7"),
    "fasterrcnn": ("objectness",),
    "fcos": ("centerness",),
}
BACKBONE = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": "backbone.body.13",
    "fasterrcnn_mobilenet_v3_large_fpn": "backbone.body.6",
    "fasterrcnn_regnet_small_fpn": "backbone.body.block3",
    "fasterrcnn_resnet50_fpn": "backbone.body.layer3",
    "fasterrcnn_resnet50_fpn_v2": "backbone.body.layer4.1.relu",  # used three times in its block
    "fcos_resnet50_fpn": "backbone.body.layer4",
    "keypointrcnn_resnet50_fpn": "backbone.body.layer4.2.conv2",
    "maskrcnn_resnet50_fpn": "backbone.fpn.inner_blocks.1",
    "maskrcnn_resnet50_fpn_v2": "backbone.body.layer3.5",
    "retinanet_resnet50_fpn": "backbone.body.layer4.2.bn3",
    "retinanet_resnet50_fpn_v2": "backbone.fpn.layer_blocks.0",
    "ssd300_vgg16": "backbone.extra.0.3",  # a convolution before an in-place ReLU
    "ssdlite320_mobilenet_v3_large": "backbone.features.0.9",
}
# By architecture, for targets of the part of the head that it belongs to.
HEAD = {
    "fasterrcnn_resnet50_fpn": {"objectness": "rpn.head.conv.0.0"},
    "fasterrcnn_resnet50_fpn_v2": {
        "objectness": "rpn.head.conv.1.1",
        "class": "roi_heads.box_head.2",
        "box": "roi_heads.box_head.1.0",
    },
    "maskrcnn_resnet50_fpn": {"mask": "roi_heads.mask_head.2.0"},
    "maskrcnn_resnet50_fpn_v2": {"mask": "roi_heads.mask_head.1.1"},
    "keypointrcnn_resnet50_fpn": {"keypoint": "roi_heads.keypoint_head.6"},
    "retinanet_resnet50_fpn": {
        "class": "head.classification_head.conv.2.0",
        "box": "head.regression_head.conv.1.1",
    },
    "retinanet_resnet50_fpn_v2": {
        "class": "head.classification_head.conv.1.1",
        "box": "head.regression_head.conv.3.2",
    },
    "fcos_resnet50_fpn": {
        "class": "head.classification_head.conv.6",
        "box": "head.regression_head.conv.8",
        "centerness": "head.regression_head.conv.3",
    },
    "ssd300_vgg16": {
        "class": "head.classification_head.module_list.0",
        "box": "head.regression_head.module_list.1",
    },
    "ssdlite320_mobilenet_v3_large": {
        "class": "head.classification_head.module_list.1.0",
        "box": "head.regression_head.module_list.4.0.1",
    },
}
SIDES = {"probability": "class", "combined": "class", "keypoint:7": "keypoint"}
SIDES |= dict.fromkeys([*EDGES, "width", "height"], "box")


@dataclass(frozen=True)
class Case:
    """layers: their names, all explained at once."""

    architecture: str
    method: str
    target: str
    layers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.architecture}-{self.method}-{self.target}-{'+'.join(self.layers)}"


def _targets(architecture: str) -> tuple[str, ...]:
    return FASTER + next(
        (more for name, more in EXTRA.items() if architecture.startswith(name)), ()
    )


def _layers(architecture: str, target: str) -> list[str]:
    pooled = "rcnn" in architecture and target != "objectness"
    head = HEAD.get(architecture, {}).get(SIDES.get(target, target))
    names = ["emitting", "roi" if pooled else None, BACKBONE[architecture], "pyramid", head]
    return [name for name in names if name]


def _all_cases() -> Iterator[Any]:
    """Of every architecture every third target, methods and layers taking turns; then all."""
    for first, architecture in enumerate(DETECTORS):
        for place, target in enumerate(_targets(architecture)[first % 3 :: 3]):
            layers = _layers(architecture, target)
            method = METHODS[(first + 3 * place) % len(METHODS)]
            case = Case(architecture, method, target, (layers[(first + place) % len(layers)],))
            yield pytest.param(case, id=str(case))
        for method, target in itertools.product(METHODS, _targets(architecture)):
            case = Case(architecture, method, target, tuple(_layers(architecture, target)))
            name = f"{architecture}-{method}-{target}-all"
            yield pytest.param(case, id=name, marks=pytest.mark.full)


@functools.lru_cache(maxsize=1)
def both(architecture: str) -> tuple[Explainer, WholeModelTwin]:
    modules = [BACKBONE[architecture], *HEAD.get(architecture, {}).values()]
    model = small_model(architecture)
    return Explainer.from_model(model, CATEGORIES), WholeModelTwin(model, PICTURE, modules)


def everything(**options: Any) -> ExplainRequest:
    return ExplainRequest(**{"score_threshold": 0.0, "max_detections": BOXES, **options})


def assert_close(fast: Tensor, slow: Tensor, size: float) -> None:
    """To 1e-3 of the map's maximum; where that was cut away or cancelled, to float32's rounding of
    what was added up, of magnitude `size`."""
    assert fast.shape == slow.shape
    assert bool(fast.isfinite().all())
    difference = float((fast - slow).abs().max())
    assert difference <= 1e-3 * float(slow.abs().max()) + 1e-5 * size


@pytest.mark.parametrize("case", list(_all_cases()))
def test_equals_plain_autograd_of_the_whole_model(case: Case) -> None:
    explainer, twin = both(case.architecture)
    request = everything(
        method=case.method, target=case.target, layer=",".join(case.layers), save_raw=True
    )
    explanations = explainer.explain([PICTURE], request)[0]
    assert [each.layer for each in explanations] == list(case.layers) * BOXES
    first = SEVERAL.get(case.target, (case.target,))[0]
    for each in explanations:
        place = twin.place(each.box, each.label, each.score)
        assert place == each.index
        assert each.level == twin.names[twin.level(first, place)]
        slow = twin.heatmap([place], case.method, case.target, each.layer)
        assert_close(each.heatmap, slow.heatmap, slow.size)
        assert each.activation is not None
        assert each.gradient is not None
        activation, gradient = twin.gradient((place,), first, each.layer)
        assert_close(each.activation, activation, 0.0)
        assert_close(each.gradient, gradient, 0.0)
        if not gradient.any() and case.target not in SEVERAL and case.method != "eigencam":
            assert not each.heatmap.any()


def anatomy(model: nn.Module) -> list[Any]:
    """What explaining must not change, module by module and parameter by parameter."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        *(
            (name, module.training, *(len(getattr(module, each)) for each in hooks))
            for name, module in model.named_modules()
        ),
        *((name, each.requires_grad, each.grad) for name, each in model.named_parameters()),
    ]


@pytest.mark.parametrize(
    ("architecture", "broken"),
    [
        ("fasterrcnn_regnet_small_fpn", None),
        ("fasterrcnn_regnet_small_fpn", "backbone.body.block4"),
        ("fasterrcnn_regnet_small_fpn", "roi_heads.box_predictor"),
        ("retinanet_resnet50_fpn", "head.classification_head.conv.3"),
        ("ssdlite320_mobilenet_v3_large", None),
        ("maskrcnn_resnet50_fpn", "roi_heads.mask_head.3"),
    ],
)
def test_the_network_is_left_as_it_was_found(
    architecture: str, broken: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(architecture)
    explainer = Explainer.from_model(model, CATEGORIES)
    target = "mask" if "mask" in architecture else "class"
    layers = [name for name in _layers(architecture, target) if name != "roi"]
    request = everything(target=target, layer=",".join(layers))
    wanted = explainer.explain([PICTURE], request)[0]
    first, *_, last = model.parameters()
    with monkeypatch.context() as patch:
        patch.setattr(first, "requires_grad", False)
        patch.setattr(last, "grad", torch.ones_like(last))
        patch.setattr(model, "training", True)  # in part, as while fine-tuning
        patch.setattr(model.get_submodule("backbone"), "training", True)
        before = anatomy(model)
        if broken is None:
            found = explainer.explain([PICTURE], request)[0]
            for one, other in zip(found, wanted, strict=True):
                assert_close(one.heatmap, other.heatmap, 0.0)
        else:
            module = model.get_submodule(broken)
            whole = module.forward

            def forward(*values: Any) -> Any:
                if torch.is_grad_enabled():  # not while it detects: in the middle of explaining
                    raise ArithmeticError("broken on purpose")
                return whole(*values)

            patch.setattr(module, "forward", forward)
            with pytest.raises(ArithmeticError, match="on purpose"):
                explainer.explain([PICTURE], request)
        assert str(anatomy(model)) == str(before)


@pytest.mark.parametrize(
    "architecture",
    ["fasterrcnn_regnet_small_fpn", "retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large"],
)
def test_a_picture_does_not_depend_on_its_neighbours(architecture: str) -> None:
    explainer = Explainer.from_model(small_model(architecture), CATEGORIES)
    pictures = [random_picture(*size, seed=size[0]) for size in [(100, 130), (90, 60), (98, 129)]]
    pictures += [PICTURE, PICTURE.flip(1)]
    request = everything(target="combined", layer=f"emitting,{BACKBONE[architecture]}")
    for picture, found in zip(pictures, explainer.explain(pictures, request), strict=True):
        alone = explainer.explain([picture], request)[0]
        assert len(alone) == len(found) == 2 * BOXES
        for one, other in zip(alone, found, strict=True):
            assert one.label == other.label
            assert one.box == pytest.approx(other.box, abs=0.05)
            assert one.score == pytest.approx(other.score, abs=1e-4)
            assert_close(other.heatmap, one.heatmap, 0.0)


@pytest.mark.parametrize(
    ("architecture", "times"),
    [
        ("fasterrcnn_regnet_small_fpn", 20),
        pytest.param("fasterrcnn_regnet_small_fpn", 500, marks=pytest.mark.full),
        pytest.param("ssdlite320_mobilenet_v3_large", 500, marks=pytest.mark.full),
    ],
)
def test_memory_does_not_grow(architecture: str, times: int) -> None:
    explainer = Explainer.from_model(small_model(architecture), CATEGORIES)
    request = everything(layer=f"emitting,pyramid,{BACKBONE[architecture]}", max_detections=1)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(each), Tensor) for each in gc.get_objects())

    for _ in range(3):
        explainer.explain([PICTURE], request)
    before, resident = tensors(), psutil.Process().memory_info().rss
    for _ in range(times):
        explainer.explain([PICTURE], request)
    assert tensors() <= before
    assert psutil.Process().memory_info().rss - resident < 60e6 + 50e3 * times


@pytest.mark.parametrize(
    "architecture",
    [
        *("fasterrcnn_regnet_small_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn"),
        *("ssdlite320_mobilenet_v3_large", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn"),
    ],
)
def test_no_detections_give_an_empty_list(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = small_model(architecture)
    explainer = Explainer.from_model(model, CATEGORIES)
    assert explainer.explain([PICTURE], ExplainRequest(score_threshold=1.0)) == [[]]
    monkeypatch.setattr(getattr(model, "roi_heads", model), "score_thresh", 1.1)
    assert [len(each) for each in explainer.detect([PICTURE, PICTURE])] == [0, 0]
    for options in ({}, {"sum_boxes": True}, {"target": "box_score"}):
        assert explainer.explain([PICTURE], everything(**options)) == [[]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("fasterrcnn_regnet_small_fpn", "backbone.fpn.layer_blocks.2.0"),
        ("fasterrcnn_regnet_small_fpn", "roi_heads.box_head.fc7"),
        ("ssdlite320_mobilenet_v3_large", "head.classification_head.module_list.0.1"),
        ("retinanet_resnet50_fpn", "head.regression_head.conv.2.0"),
    ],
)
def test_what_is_not_finite_is_named(
    architecture: str, name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(architecture)
    explainer = Explainer.from_model(model, CATEGORIES)
    weight = model.get_submodule(name).get_parameter("weight")
    monkeypatch.setattr(weight, "data", torch.full_like(weight, value))
    what = "the activation of" if value == 1e38 else "the weights of"
    with pytest.raises(NonFiniteError, match=rf"{what} {name}"):
        explainer.explain([PICTURE], everything())
    if value != 1e38:
        with pytest.raises(NonFiniteError, match=rf"the weights of {name}\.weight"):
            Explainer.from_model(model, CATEGORIES)


@pytest.mark.parametrize(
    ("architecture", "target"),
    [
        ("fasterrcnn_regnet_small_fpn", "class"),
        pytest.param("fcos_resnet50_fpn", "combined", marks=pytest.mark.full),
        ("ssdlite320_mobilenet_v3_large", "probability"),
        pytest.param("keypointrcnn_resnet50_fpn", "keypoint", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("method", ["odam", "gradcam++"])
def test_sum_of_several_boxes(architecture: str, target: str, method: str) -> None:
    explainer, twin = both(architecture)
    first = SEVERAL.get(target, (target,))[0]
    options: dict[str, Any] = {"method": method, "target": target, "sum_boxes": True}
    for layer in ("emitting", "pyramid", BACKBONE[architecture]):
        (one,) = explainer.explain([PICTURE], everything(layer=layer, **options))[0]
        places = list(range(BOXES))
        assert one.together == tuple(places)
        if layer == "emitting" and len({twin.level(first, place) for place in places}) > 1:
            continue  # test_picture.py has sums over several maps
        slow = twin.heatmap(places, method, target, layer)
        assert_close(one.heatmap, slow.heatmap, slow.size)


NAMED: dict[str, Any] = {
    "class": lambda outputs: outputs.own("logits"),
    "probability": lambda outputs: outputs["scores"],
}


@pytest.mark.parametrize(
    "architecture",
    [
        *("fasterrcnn_regnet_small_fpn", "ssdlite320_mobilenet_v3_large"),
        pytest.param("retinanet_resnet50_fpn", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("target", sorted(NAMED))
def test_a_callable_equals_the_named_target(architecture: str, target: str) -> None:
    explainer, twin = both(architecture)
    layer = BACKBONE[architecture]
    for each in explainer.explain([PICTURE], everything(target=NAMED[target], layer=layer))[0]:
        slow = twin.heatmap([each.index], "odam", target, layer)
        assert_close(each.heatmap, slow.heatmap, slow.size)
    named = explainer.explain([PICTURE], everything(target=target))[0]
    for one, other in zip(
        explainer.explain([PICTURE], everything(target=NAMED[target]))[0], named, strict=True
    ):
        assert one.box == other.box
        assert_close(one.heatmap, other.heatmap, 0.0)
    (whole,) = explainer.explain(
        [PICTURE], everything(target=lambda outputs: outputs.own("logits")[0], layer=layer)
    )[0]
    slow = twin.heatmap([0], "odam", "class", layer)
    assert_close(whole.heatmap, slow.heatmap, slow.size)


@pytest.mark.parametrize(
    "architecture",
    ["fasterrcnn_regnet_small_fpn", "fcos_resnet50_fpn", "ssdlite320_mobilenet_v3_large"],
)
def test_box_score_equals_the_tutorials_target_on_the_stock_model(architecture: str) -> None:
    explainer, twin = both(architecture)
    layer = BACKBONE[architecture]
    (found,) = explainer.explain([PICTURE], everything(target="box_score", layer=layer))[0]
    labels, whole = twin.found["labels"][:BOXES].tolist(), twin.found["boxes"][:BOXES].int()
    value = box_score_by_hand(labels, whole, twin.found)
    assert value > 0
    slow = FORMULAS["odam"](*twin.differentiate(value, layer))
    assert_close(found.heatmap, slow.clamp(min=0), float(slow.abs().max()))

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from handlers.detectors.base import Detector
from handlers.detectors.registry import (
    ADAPTERS,
    FROZEN_BATCH_NORM_EPS,
    DetectorError,
    architectures,
    build_model,
    detector_for,
    load_weights,
)
from tests.conftest import DETECTORS


def test_architectures_are_torchvisions_and_ours() -> None:
    assert {"resnet50", "vgg16", "transformers"} <= set(architectures())
    assert DETECTORS == [
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "fasterrcnn_regnet_small_fpn",
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "fcos_resnet50_fpn",
        "keypointrcnn_resnet50_fpn",
        "maskrcnn_resnet50_fpn",
        "maskrcnn_resnet50_fpn_v2",
        "retinanet_resnet50_fpn",
        "retinanet_resnet50_fpn_v2",
        "ssd300_vgg16",
        "ssdlite320_mobilenet_v3_large",
    ]


def test_retinanet_loads_its_older_names() -> None:
    model = build_model("retinanet_resnet50_fpn", 3)
    older = {name: torch.full_like(each, 2) for name, each in model.state_dict().items()}
    for head in ("classification", "regression"):
        for layer in range(4):
            for kind in ("weight", "bias"):
                new = f"head.{head}_head.conv.{layer}.0.{kind}"
                older[f"head.{head}_head.conv.{2 * layer}.{kind}"] = older.pop(new)
    load_weights(model, older)
    assert all(bool((each == 2).all()) for each in model.state_dict().values())


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("yolo", {}, "unknown detector 'yolo'; expected one of .*fasterrcnn_mobilenet"),
        ("fasterrcnn_resnet50_fpn", {"weights": 1}, "cannot be built: .*'weights'"),
    ],
)
def test_what_cannot_be_built(architecture: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        build_model(architecture, 3, options)


def test_frozen_batch_norm_takes_the_place_of_every_batch_norm() -> None:
    model = build_model("fasterrcnn_regnet_small_fpn", 3, {FROZEN_BATCH_NORM_EPS: 0.5})
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert {norm.eps for norm in norms} == {0.5}
    assert len(norms) > 20
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_a_model_without_an_adapter_says_how_to_write_one() -> None:
    with pytest.raises(
        DetectorError, match=r"no adapter for a torch.nn.*Linear; there are .*README"
    ):
        detector_for(nn.Linear(1, 1))


def test_weights_are_copied_in_any_floating_type() -> None:
    model = nn.Linear(2, 1)
    load_weights(model, {"weight": torch.tensor([[1.5, -2.0]]).half(), "bias": torch.tensor([3.0])})
    assert model(torch.tensor([[1.0, 1.0]])).item() == 2.5
    assert model.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"bias": torch.zeros(1)}, "missing weight"),
        (
            {"weight": torch.zeros(1, 2), "bias": torch.zeros(1), "x": torch.zeros(1)},
            "unexpected x",
        ),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.zeros(1)},
            r"weight is \[3, 2\], expected \[1, 2\]",
        ),
        ({str(i): torch.zeros(1) for i in range(9)}, "and 7 more"),
    ],
)
def test_weights_that_do_not_fit(weights: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        load_weights(nn.Linear(2, 1), weights)


def test_mnasnet_loads_its_own_weights() -> None:
    model = build_model("mnasnet0_5", 3)
    load_weights(
        model, {name: torch.full_like(each, 2) for name, each in model.state_dict().items()}
    )
    assert all(bool((each == 2).all()) for each in model.state_dict().values())


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_adapters_have_all_of_the_protocol(name: str) -> None:
    adapter = ADAPTERS.get(name)
    attributes = set(Detector.__annotations__) - {"model"}
    verbs = {each for each, value in vars(Detector).items() if callable(value) and each[0] != "_"}
    assert [each for each in sorted(attributes | verbs) if not hasattr(adapter, each)] == []

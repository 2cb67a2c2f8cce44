from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from handlers import precision
from handlers.explainer import Explainer
from handlers.precision import (
    HalvedProduct,
    Replaced,
    exact_float32,
    halved_products,
    has_bfloat16_units,
    is_depthwise,
    quick_pools,
)
from handlers.schema import ExplainRequest, RequestError
from tests.conftest import CATEGORIES, random_picture, small_model

PICTURES = [random_picture(96, 128, seed) for seed in range(2)]
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx512f amx_tile amx_bf16", True),
        ("flags : avx512_bf16", True),
        ("flags : avx512f avx512_vnni", False),
    ],
)
def test_units_are_told_by_the_flags(tmp_path: Path, flags: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(flags)
    assert has_bfloat16_units(CPU, tmp_path / "cpuinfo") is expected


def test_no_flags_mean_no_units(tmp_path: Path) -> None:
    assert not has_bfloat16_units(CPU, tmp_path / "none")


def explainer(name: str) -> Explainer:
    return Explainer.from_model(small_model("fasterrcnn_regnet_small_fpn"), CATEGORIES, "cpu", name)


def test_a_compiler_that_fails_is_said_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tensors: torch.Tensor) -> None:
        raise RuntimeError("no C++ compiler was found\nand more")

    exact = explainer("fp32").detect(PICTURES)
    monkeypatch.setattr(torch, "compile", lambda function: broken)
    monkeypatch.setattr("handlers.network.has_bfloat16_units", lambda device: False)
    fast = explainer("fast")
    with pytest.warns(UserWarning, match="runs uncompiled.*RuntimeError: no C\\+\\+ compiler"):
        found = fast.detect(PICTURES)
    for one, other in zip(exact, found, strict=True):
        assert torch.allclose(one.boxes, other.boxes, atol=0.05)
        assert torch.allclose(one.scores, other.scores, atol=1e-4)
    assert "forward" not in vars(fast.detector.model.get_submodule("backbone"))


def test_what_is_compiled_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Tensor] = []

    def compiled(function: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
        def run(tensors: torch.Tensor) -> Any:
            calls.append(tensors)
            return function(tensors)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr("handlers.network.has_bfloat16_units", lambda device: False)
    request = ExplainRequest(score_threshold=0.0, max_detections=3)
    exact, fast = explainer("fp32").explain(PICTURES, request), explainer("fast")
    assert not calls
    found = fast.explain(PICTURES, request)
    assert len(calls) == 1  # one batch
    for one, other in zip(exact[0], found[0], strict=True):
        assert float((one.heatmap - other.heatmap).abs().max()) <= 1e-3 * float(one.heatmap.max())


def test_a_wrapped_forward_is_used_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr("handlers.network.has_bfloat16_units", lambda device: False)
    model = small_model("fasterrcnn_regnet_small_fpn")
    backbone = model.get_submodule("backbone")
    own = backbone.forward

    def halved(tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: each / 2 for name, each in own(tensors).items()}

    monkeypatch.setitem(vars(backbone), "forward", halved)
    exact = Explainer.from_model(model, CATEGORIES).detect(PICTURES)
    fast = Explainer.from_model(model, CATEGORIES, precision="fast").detect(PICTURES)
    assert vars(backbone)["forward"] is halved
    for one, other in zip(exact, fast, strict=True):
        assert torch.allclose(one.scores, other.scores, atol=1e-4)


def test_threads_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    fast = explainer("fast")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fast.detect(PICTURES[:1])[0].scores, range(8)))
    assert all(torch.equal(each, found[0]) for each in found)


def test_out_of_memory_is_not_the_compilers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda function: full)
    with pytest.raises(torch.OutOfMemoryError):
        explainer("fast").detect(PICTURES[:1])


def test_units_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr("handlers.network.has_bfloat16_units", lambda device: True)
    exact, fast = explainer("fp32").detect(PICTURES), explainer("fast").detect(PICTURES)
    half = explainer("bf16").detect(PICTURES)
    for one, other, third in zip(exact, fast, half, strict=True):
        assert not torch.equal(one.scores, other.scores)
        assert torch.allclose(one.scores, other.scores, atol=0.1)
        assert torch.allclose(third.scores, other.scores, atol=0.1)


def test_units_do_not_help_depthwise_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr("handlers.network.has_bfloat16_units", lambda device: True)
    names = ("ssdlite320_mobilenet_v3_large", "fasterrcnn_regnet_small_fpn")
    models = [small_model(name) for name in names]
    assert [is_depthwise(each) for each in models] == [True, False]
    found = [Explainer.from_model(each, CATEGORIES, "cpu", "fast") for each in models]
    assert [each.network.bfloat16 for each in found] == [False, True]
    (exact,) = Explainer.from_model(models[0], CATEGORIES).detect(PICTURES[:1])
    (own,) = found[0].detect(PICTURES[:1])
    torch.testing.assert_close(own.scores, exact.scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_large_layers_multiply_in_bfloat16(bias: bool) -> None:
    torch.manual_seed(0)
    layers = [
        nn.Linear(1024, 512, bias),
        nn.Conv2d(64, 1024, 3, padding=1, stride=2, bias=bias),
        nn.Linear(512, 512, bias),  # small
    ]
    model = nn.Module()
    model.roi_heads = nn.ModuleList(layers)
    model.backbone = nn.Linear(1024, 512)
    inputs = [torch.randn(3, 1024), torch.randn(2, 64, 9, 7), torch.randn(3, 512)]
    halved = Replaced(halved_products(model))
    for factor in (1.0, 2.0):  # of weights that change
        with torch.no_grad():
            for each in model.parameters():
                each.mul_(factor)
            exact = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
            with halved.in_place():
                assert "forward" not in vars(model.backbone)
                found = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
            assert all("forward" not in vars(layer) for layer in layers)
            for one, other in zip(exact[:2], found[:2], strict=True):
                assert other.dtype == torch.float32
                error = float((one - other).norm() / one.norm())
                assert 1e-4 < error < 4e-3  # eight bits
            assert torch.equal(exact[2], found[2])


def test_a_wrapped_layer_stays_wrapped() -> None:
    layer, inputs = nn.Linear(1, 1), torch.zeros(1)
    replaced = Replaced({layer: lambda x: x + 1})
    vars(layer)["forward"] = lambda x: x + 2
    with replaced.in_place():
        assert float(layer(inputs)) == 2
    assert float(layer(inputs)) == 2
    del vars(layer)["forward"]
    with replaced.in_place(), Replaced({layer: lambda x: x + 3}).in_place():
        assert float(layer(inputs)) == 1
        vars(layer)["forward"] = lambda x: x + 2  # by somebody, meanwhile
    assert float(layer(inputs)) == 2
    del vars(layer)["forward"]
    with pytest.raises(KeyError), replaced.in_place():
        raise KeyError
    assert "forward" not in vars(layer)


def test_gradients_are_the_layers_own() -> None:
    layer, inputs = nn.Linear(1024, 512), torch.randn(2, 1024)
    product = HalvedProduct(layer)
    assert torch.equal(product(inputs), layer(inputs))
    with torch.no_grad():
        assert not torch.equal(product(inputs), layer(inputs))
        layer.weight = nn.Parameter(layer.weight * 3)
        error = (product(inputs) - layer(inputs)).norm() / layer(inputs).norm()
    assert float(error) < 4e-3


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("fasterrcnn_resnet50_fpn", 3),  # the RPN's convolution, fc6 and fc7
        ("retinanet_resnet50_fpn", 0),
        ("fcos_resnet50_fpn", 0),
        ("ssdlite320_mobilenet_v3_large", 0),
    ],
)
def test_dense_heads_are_exact(name: str, number: int) -> None:
    assert len(halved_products(small_model(name))) == number


def test_maps_found_again_are_scored_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr("handlers.network.has_bfloat16_units", lambda device: True)
    monkeypatch.setattr("handlers.precision.LARGE", 1)
    network = explainer("fast").network
    inputs = network.detector.prepare(PICTURES[0])
    (found,) = network.find(inputs)
    (again,) = network.find_in(found.features)
    assert torch.equal(found.raw.scores, again.raw.scores)
    exact = explainer("fp32").network.find_in(found.features)[0]
    assert not torch.equal(exact.raw.scores, again.raw.scores)


def test_pools_are_replaced_on_a_processor() -> None:
    model = small_model("fasterrcnn_regnet_small_fpn")
    (pool,) = quick_pools(model)
    assert pool is model.get_submodule("roi_heads.box_roi_pool")
    assert quick_pools(small_model("ssdlite320_mobilenet_v3_large")) == {}


@pytest.mark.full
def test_the_real_compiler() -> None:
    exact, fast = explainer("fp32").detect(PICTURES), explainer("fast").detect(PICTURES)
    for one, other in zip(exact, fast, strict=True):
        assert torch.allclose(one.scores, other.scores, atol=0.1)


@pytest.mark.parametrize(
    "outside",
    [
        "pass",
        "torch.set_float32_matmul_precision('medium')",
        "backends.fp32_precision = 'tf32'",
        "backends.cuda.matmul.fp32_precision = 'tf32'",
        "backends.mkldnn.matmul.fp32_precision = 'bf16'",
    ],
)
def test_float32_is_exact_inside_and_as_it_was_outside(outside: str) -> None:
    # Alone, since what one way of saying it has set, another may no longer read.
    code = f"""
import torch
from torch import backends
from handlers.precision import exact_float32
kinds = backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul
{outside}
before = [each.fp32_precision for each in kinds]
try:
    with exact_float32():
        assert [each.fp32_precision for each in kinds] == ["ieee"] * 3
        raise KeyError
except KeyError:
    assert [each.fp32_precision for each in kinds] == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_program_s_autocast_does_not_count() -> None:
    one = torch.full((2, 2), 1.001)
    with torch.autocast("cpu", torch.bfloat16):
        with exact_float32():
            assert (one @ one).dtype == torch.float32
        assert (one @ one).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(KeyError), exact_float32():
            raise KeyError
        assert torch.is_autocast_enabled("cpu")
    with exact_float32():
        assert not torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("method", ["odam", "eigengradcam"])
def test_maps_are_the_same_under_a_program_s_autocast(method: str) -> None:
    subject, request = explainer("fp32"), ExplainRequest(method=method, score_threshold=0.0)
    (expected,) = subject.explain(PICTURES[:1], request)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = subject.explain(PICTURES[:1], request)
    assert expected
    for one, other in zip(expected, found, strict=True):
        assert one.score == other.score
        torch.testing.assert_close(one.heatmap, other.heatmap)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(RequestError, match="precision: got 'fp8'; allowed: fp32, bf16, fast"):
        explainer("fp8")


def test_every_precision_is_named() -> None:
    assert precision.PRECISIONS == ("fp32", "bf16", "fast")

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.misc import FrozenBatchNorm2d

from archives.building.build import BuildOptions, build
from archives.building.weights import (
    UnsafeWeightsError,
    Weights,
    WeightsError,
    read_categories,
    read_weights,
)
from handlers.detectors.registry import build_model, load_weights
from handlers.explainer import Explainer
from tests.conftest import random_picture

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.float16)}


class Command:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch pwned",)


def read(path: Path) -> Weights:
    return read_weights(str(path), "fasterrcnn_resnet50_fpn", None, {})


@pytest.mark.parametrize("content", [TENSORS, {"model": TENSORS}, {"state_dict": TENSORS}])
def test_pickles_of_tensors(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    tensors = read(tmp_path / "weights.pth").tensors
    assert {name: (each.tolist(), each.dtype) for name, each in tensors.items()} == {
        "a": ([[0, 1, 2], [3, 4, 5]], torch.float32),
        "b": ([1], torch.float16),
    }


@pytest.mark.parametrize(
    ("content", "needs"),
    [
        ({"a": Command()}, "posix.system"),
        ({"model": TENSORS, "args": argparse.Namespace()}, "argparse.Namespace"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
)
def test_pickles_of_more_are_refused(
    content: Any, needs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UnsafeWeightsError, match=needs):
        read(tmp_path / "weights.pth")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(UnsafeWeightsError, match="can run code"):
        read(tmp_path / "script.pt")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"hello, world",
        lambda data: b"<!DOCTYPE html><title>404</title>",
        lambda data: b"version https://git-lfs.github.com/spec/v1",
        lambda data: b"",
    ],
)
def test_damaged_files(suffix: str, damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(TENSORS, path) if suffix == ".pth" else safetensors.torch.save_file(TENSORS, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match="truncated") as caught:
        read(path)
    assert not isinstance(caught.value, UnsafeWeightsError)


@pytest.mark.parametrize("content", [[1], {}, {"a": 1}, {"a": TENSORS["a"].to_sparse()}])
def test_no_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"state_dict|store it dense"):
        read(tmp_path / "weights.pt")


def test_random_weights_have_torchvisions_categories() -> None:
    first, second = (read_weights("random", "fasterrcnn_resnet50_fpn", None, {}) for _ in range(2))
    assert first.categories is not None
    assert (len(first.categories), first.categories[1]) == (91, "person")
    name = "roi_heads.box_predictor.cls_score.weight"
    assert first.tensors[name].shape[0] == 91
    assert torch.equal(first.tensors[name], second.tensors[name])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat\n\n dog \n", ("__background__", "cat", "dog")),
        ("\ufeff__background__\r\nchâteau\r\n", ("__background__", "château")),
        ("cat\nN/A\nN/A\n", ("__background__", "cat", "N/A", "N/A")),
    ],
)
def test_categories(text: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(text.encode())
    assert read_categories(tmp_path / "names.txt") == expected


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"cat\ncat\n", "cat more than once"), (b"\n", "names none"), (b"\xff\xfe", "UTF-8")],
)
def test_bad_categories(data: bytes, error: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(data)
    with pytest.raises(WeightsError, match=error):
        read_categories(tmp_path / "names.txt")


@pytest.mark.parametrize("header", ["disc, ring", '{"disc": 1}', "[1]"])
def test_bad_categories_in_the_header(header: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(TENSORS, path, {"categories": header})
    with pytest.raises(WeightsError, match="the header of"):
        read(path)


@pytest.mark.parametrize(
    ("file", "eps"), [("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 0.0), ("tuned.pth", 1e-5)]
)
def test_weights_of_a_frozen_backbone_give_the_stock_numbers(
    file: str, eps: float, tmp_path: Path
) -> None:
    """torchvision's builders make FrozenBatchNorm2d only while they download; so did its weights'
    owners, and a BatchNorm2d would take other weights and another eps."""
    torch.manual_seed(0)
    trunk = resnet50(weights=None, norm_layer=partial(FrozenBatchNorm2d, eps=eps))
    stock = FasterRCNN(_resnet_fpn_extractor(trunk, 3), 91, min_size=96, box_score_thresh=0.0)
    for name, buffer in stock.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(1e-5, 2)
    torch.save(stock.eval().state_dict(), tmp_path / file)
    path = build(
        BuildOptions(
            detector="fasterrcnn_resnet50_fpn",
            weights=str(tmp_path / file),
            categories=None if eps == 0 else category_file(tmp_path),
            name="frozen",
            version="1.0",
            export_path=tmp_path,
            options={"min_size": 96, "box_score_thresh": 0.0},
            golden_sample=False,
        )
    )
    explainer = Explainer.from_archive(path)
    assert explainer.manifest is not None
    assert explainer.manifest.options["frozen_batch_norm_eps"] == eps
    assert explainer.categories[1] == ("person" if eps == 0 else "name 1")
    picture = random_picture(90, 120)
    with torch.no_grad():
        expected = stock([picture / 255])[0]
    found = explainer.detect([picture])[0]
    assert torch.equal(found.boxes, expected["boxes"])
    assert torch.equal(found.scores, expected["scores"])


def category_file(folder: Path) -> Path:
    file = folder / "categories.txt"
    file.write_text("\n".join(f"name {label}" for label in range(1, 91)))
    return file


def test_a_classifiers_official_file_brings_its_preparation(tmp_path: Path) -> None:
    url = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url
    file = tmp_path / url.rpartition("/")[2]
    torch.save(build_model("shufflenet_v2_x0_5", 1000).state_dict(), file)
    read = read_weights(str(file), "shufflenet_v2_x0_5", None, {})
    assert read.options == {"preset": "IMAGENET1K_V1"}
    assert read.categories is not None
    assert read.categories[:2] == ("tench", "goldfish")


def test_the_first_densenets_names(tmp_path: Path) -> None:
    model = build_model("densenet121", 4)
    older = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): tensor
        for name, tensor in model.state_dict().items()
    }
    assert "features.denseblock1.denselayer2.norm.1.weight" in older
    torch.save(older, tmp_path / "old.pth")
    read = read_weights(str(tmp_path / "old.pth"), "densenet121", None, {})
    assert read.tensors.keys() == model.state_dict().keys()
    load_weights(model, read.tensors)

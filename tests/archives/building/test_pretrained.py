from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from archives.building.build import BuildOptions, build
from archives.building.pretrained import read_pretrained
from archives.building.weights import WeightsError
from handlers.detectors.registry import DetectorError, build_model, load_weights
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from tests.conftest import random_picture
from tests.handlers.detectors.tiny_transformers import (
    CATEGORIES,
    FAMILIES,
    processor,
    tiny_model,
)

PICTURE = random_picture(90, 110)
REQUEST = ExplainRequest(score_threshold=0.1, max_detections=3)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each family, as the library saves it."""
    root = tmp_path_factory.mktemp("pretrained")
    for family in FAMILIES:
        model: Any = copy.deepcopy(tiny_model(family))
        model.config.id2label = dict(enumerate(CATEGORIES))
        shards = {"max_shard_size": "100kB"} if family == "rt_detr" else {}
        model.save_pretrained(root / family, **shards)
        processor(family).save_pretrained(root / family)
    return root


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """One that a test may damage."""
    return Path(shutil.copytree(saved / "detr", tmp_path / "detr"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_is_read_as_it_was(saved: Path, family: str) -> None:
    weights = read_pretrained(saved / family)
    assert weights.categories == CATEGORIES
    model = build_model("transformers", 5, json.loads(json.dumps(weights.options)))
    load_weights(model, weights.tensors)
    for name, each in tiny_model(family).state_dict().items():
        assert torch.equal(weights.tensors[name], each)
    (stock,) = Explainer.from_model(tiny_model(family), CATEGORIES).detect([PICTURE])
    (found,) = Explainer.from_model(model, CATEGORIES).detect([PICTURE])
    number = len(stock)  # its threshold is higher
    assert len(found) >= number > 2
    assert torch.equal(found.scores[:number], stock.scores)
    assert torch.equal(found.boxes[:number], stock.boxes)


def test_an_archive_of_a_folder_explains_the_same(saved: Path, tmp_path: Path) -> None:
    assert (saved / "rt_detr" / "model.safetensors.index.json").is_file()
    options = BuildOptions(
        "transformers", str(saved / "rt_detr"), "tiny", "1.0", tmp_path, golden_sample=False
    )
    own = Explainer.from_archive(build(options))
    assert own.categories == CATEGORIES
    expected = Explainer.from_model(tiny_model("rt_detr"), CATEGORIES).explain([PICTURE], REQUEST)
    for one, other in zip(own.explain([PICTURE], REQUEST)[0], expected[0], strict=True):
        assert (one.box, one.category, one.score) == (other.box, other.category, other.score)
        assert torch.equal(one.heatmap, other.heatmap)


def test_half_precision_stays_half(folder: Path) -> None:
    file = folder / "model.safetensors"
    halves = {name: each.half() for name, each in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(halves, file, {"format": "pt"})
    tensors = read_pretrained(folder).tensors
    assert all(each.dtype == torch.float16 for each in tensors.values())


def test_nothing_of_the_folder_is_run_or_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked for the network")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    (folder / "modeling_evil.py").write_text("raise SystemExit('code of the folder was run')")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForObjectDetection": "modeling_evil.Evil"}
    config |= {"use_pretrained_backbone": True, "_name_or_path": "facebook/detr-resnet-50"}
    (folder / "config.json").write_text(json.dumps(config))
    weights = read_pretrained(folder)
    assert "auto_map" not in weights.options["config"]
    build_model("transformers", 5, weights.options)


def remove(*names: str) -> Any:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def write(name: str, text: str) -> Any:
    return lambda folder: (folder / name).write_text(text)


def settle(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_a_tensor(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["stranger"] = tensors.pop("class_labels_classifier.weight")
    safetensors.torch.save_file(tensors, file, {"format": "pt"})


SHARDS = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "config.json cannot be read as JSON"),
        (write("config.json", "{"), "config.json cannot be read as JSON"),
        (write("config.json", "[]"), "config.json holds no JSON object"),
        (write("preprocessor_config.json", "?"), "preprocessor_config.json cannot be read"),
        (write("preprocessor_config.json", '{"size": "big"}'), "size is 'big'; expected"),
        (remove("model.safetensors"), "expected model.safetensors or .*; there is no safetensors"),
        (pickled, "there are only pytorch_model.bin, and no safetensors. Save the model again"),
        (write("model.safetensors", "damaged"), "missing, truncated or no safetensors file"),
        (write(SHARDS, "{}"), "has no weight_map"),
        (write(SHARDS, '{"weight_map": {"a": "../b.safetensors"}}'), "no file beside it"),
        (write(SHARDS, '{"weight_map": {"a": "b.safetensors"}}'), "b.safetensors is missing"),
        (without_a_tensor, "missing class_labels_classifier.weight; not understood stranger"),
        (settle(num_queries=11), "does not fit its config.json: "),
        (settle(model_type="yolos"), "model_type is 'yolos'; expected one of conditional_detr"),
        (settle(d_model="wide"), "config.json: its config is refused: .*d_model"),
        (settle(id2label={"1": "a", "2": "b"}), "expected 0, 1, 2 and so on|does not fit"),
    ],
)
def test_folders_that_cannot_be_used(folder: Path, damage: Any, message: str) -> None:
    damage(folder)
    with pytest.raises(WeightsError, match=message):
        read_pretrained(folder)


def test_without_the_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DetectorError, match=r"pip install 'whybox\[transformers\]'"):
        read_pretrained(folder)

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from torch import Tensor

import handlers
from archives.__main__ import main
from archives.build import BuildError, BuildOptions, build
from archives.verify import verify
from handlers.archive import read_archive
from handlers.endpoint import json_schema

TREE = Path(handlers.__file__).parent


@pytest.fixture(scope="module")
def tensors(archive: Path) -> dict[str, Tensor]:
    return read_archive(archive).weights


def command(options: BuildOptions, *more: str, weights: str = "random") -> list[str]:
    words = ["build", "--detector", options.detector, "--weights", weights, "--name", "other"]
    return [*words, "--version", "1.0", "--export-path", str(options.export_path), *more]


def test_same_inputs_give_the_same_bytes(
    archive: Path, options: BuildOptions, tmp_path: Path
) -> None:
    again = build(replace(options, export_path=tmp_path))
    assert again.read_bytes() == archive.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["small.mar"]


def test_buckets_that_requests_may_name(options: BuildOptions, tmp_path: Path) -> None:
    path = build(replace(options, export_path=tmp_path, buckets=("pictures", "more.of-them")))
    with zipfile.ZipFile(path) as opened:
        config = yaml.safe_load(opened.read("model-config.yaml"))
    assert config["whybox"] == {"buckets": ["pictures", "more.of-them"]}
    assert config["responseTimeout"] == 120
    with pytest.raises(BuildError, match="bucket: got 's3://pictures'"):
        build(replace(options, export_path=tmp_path, buckets=("s3://pictures",)))


def test_contents(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        handler = opened.read("explain_handler.py")
    code = {f"handlers/{file.relative_to(TREE).as_posix()}" for file in TREE.rglob("*.py")}
    others = {"explain_handler.py", "model-config.yaml", "weights.safetensors", "whybox.json"}
    schemas = {f"schemas/{name}.json" for name in json_schema.schemas()}
    assert names == sorted({*code, *others, *schemas, "MAR-INF/MANIFEST.json"})
    assert handler == (TREE / "explain_handler.py").read_bytes()


def test_manifest(archive: Path) -> None:
    manifest = verify(archive)
    assert (manifest.name, manifest.version) == ("small", "1.2")
    assert manifest.categories == ("__background__", "disc", "ring", "star")
    assert (manifest.torch, manifest.weights) == (torch.__version__, "weights.safetensors")


def test_half_precision_and_categories_of_the_file_are_kept(
    tensors: dict[str, Tensor], options: BuildOptions, tmp_path: Path
) -> None:
    half = {
        name: each.half() if each.is_floating_point() else each for name, each in tensors.items()
    }
    metadata = {"categories": '["disc", "ring", "star"]'}
    safetensors.torch.save_file(half, tmp_path / "half.safetensors", metadata)
    wanted = replace(
        options,
        weights=str(tmp_path / "half.safetensors"),
        categories=None,
        export_path=tmp_path,
    )
    built = read_archive(build(wanted))
    assert built.manifest.categories == ("__background__", "disc", "ring", "star")
    for name, expected in half.items():
        torch.testing.assert_close(built.weights[name], expected, rtol=0, atol=0)


def test_failed_build_leaves_the_old_archive(
    archive: Path, options: BuildOptions, categories: Path, tmp_path: Path
) -> None:
    old = tmp_path / "other.mar"
    old.write_bytes(b"old")
    torch.save({"wrong": torch.zeros(1)}, tmp_path / "wrong.pth")
    arguments = command(
        replace(options, export_path=tmp_path),
        *("--categories", str(categories), "--force"),
        weights=str(tmp_path / "wrong.pth"),
    )
    assert main(arguments) == 2
    assert old.read_bytes() == b"old"
    assert {file.name for file in tmp_path.iterdir()} == {"other.mar", "wrong.pth"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (["--name", "../small"], "name: got '../small'; expected letters"),
        (["--version", "one"], "version: got 'one'; expected numbers"),
        (
            ["--detector", "yolo"],
            "fasterrcnn_mobilenet_v3_large_320_fpn, fasterrcnn_mobilenet_v3_large_fpn,",
        ),
        (["--weights", "no.pth"], "there is no file no.pth"),
        (["--weights", "COCO_V1"], "fasterrcnn_regnet_small_fpn has no COCO_V1; expected random"),
        (["--weights", __file__], "should end in one of .safetensors, .pth, .pt"),
        (["--weights", "random"], "give --categories FILE"),
        (["--categories", "no.txt"], "no.txt cannot be read"),
        (["--name", "small"], "is there already; give --force"),
        (["--export-path", __file__], "File exists"),
    ],
)
def test_bad_options(
    change: list[str],
    text: str,
    archive: Path,
    options: BuildOptions,
    categories: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = [] if change == ["--weights", "random"] else ["--categories", str(categories)]
    assert main(command(options, *named, *change)) == 2
    assert text in capsys.readouterr().err


def test_weights_for_other_categories(
    tensors: dict[str, Tensor],
    options: BuildOptions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    safetensors.torch.save_file(tensors, tmp_path / "weights.safetensors")
    (tmp_path / "two.txt").write_text("disc\nring\n")
    arguments = command(
        options,
        *("--categories", str(tmp_path / "two.txt")),
        weights=str(tmp_path / "weights.safetensors"),
    )
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "cls_score.weight is [4, 256], expected [3, 256]" in error
    assert "3 categories with the background" in error


def test_missing_internet_is_worth_a_retry(
    options: BuildOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    official = ["--detector", "fasterrcnn_resnet50_fpn_v2", "--weights", "COCO_V1"]
    assert main(command(options, *official)) == 75
    assert "could not be fetched" in capsys.readouterr().err

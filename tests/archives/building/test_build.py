from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
import safetensors.torch
import torch
import yaml
from torch import Tensor

import handlers
from archives import golden
from archives.__main__ import main
from archives.building.build import BuildError, BuildOptions, _place, build
from archives.verify import verify
from handlers.archive import read_archive
from handlers.endpoint import json_schema
from handlers.images import decode_picture, to_image
from tests.archives.small_archives import write_small
from tests.conftest import random_picture

TREE = Path(handlers.__file__).parent


@pytest.fixture(scope="module")
def tensors(archive: Path) -> dict[str, Tensor]:
    return read_archive(archive).weights


def command(options: BuildOptions, *more: str, weights: str = "random") -> list[str]:
    words = ["build", "--detector", options.detector, "--weights", weights, "--name", "other"]
    return [*words, "--version", "1.0", "--export-path", str(options.export_path), *more]


def built_elsewhere(options: BuildOptions, environment: dict[str, str], mask: int) -> str:
    """Builds in a process that differs in all that should not matter; the archive's sha256."""
    os.environ.update(environment)
    os.umask(mask)
    time.tzset()
    return hashlib.sha256(build(options).read_bytes()).hexdigest()


def test_same_inputs_give_the_same_bytes(
    archive: Path, options: BuildOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another day, in another folder, under another umask, and two at once."""
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    others = [
        {"TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "avx2"},
        {"TZ": "America/Lima", "MKL_CBWR": "AVX2", "LANG": "tr_TR.UTF-8"},
    ]
    folders = [tmp_path / "a", tmp_path / "b"]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        several = [replace(options, export_path=folder) for folder in folders]
        digests = list(pool.map(built_elsewhere, several, others, (0o077, 0o002)))
    assert digests == [hashlib.sha256(archive.read_bytes()).hexdigest()] * 2
    assert [[file.name for file in folder.iterdir()] for folder in folders] == [["small.mar"]] * 2


def test_what_the_options_say(archive: Path, options: BuildOptions, tmp_path: Path) -> None:
    config, picture = tmp_path / "own.yaml", tmp_path / "own.png"
    config.write_text("batchSize: 2\nwhybox: {defaults: {method: eigencam, smooth: 0.1}}\n")
    to_image(random_picture(60, 80)).save(picture)
    more = ["--config", config, "--default", "method=layercam", "--default", "max_detections=7"]
    more += ["--golden-picture", picture, "--source-revision", "v1", "--categories"]
    more += [options.categories or ""]
    assert main(command(replace(options, export_path=tmp_path), *map(str, more))) == 0
    path = tmp_path / "other.mar"
    manifest, sample = verify(path), golden.read_golden(path)
    defaults = {"method": "layercam", "smooth": 0.1, "max_detections": 7}
    assert manifest.defaults == defaults
    assert manifest.source_revision == "v1"
    assert sample.request.items() >= defaults.items()
    assert torch.equal(decode_picture(sample.picture), random_picture(60, 80))
    with zipfile.ZipFile(path) as opened:
        written = yaml.safe_load(opened.read("model-config.yaml"))
    assert (written["batchSize"], written["whybox"]) == (2, {"defaults": defaults})


def test_buckets_that_requests_may_name(options: BuildOptions, tmp_path: Path) -> None:
    path = build(
        replace(
            options, export_path=tmp_path, buckets=("pictures", "more.of-them"), golden_sample=False
        )
    )
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
    others |= {"bill-of-materials.cdx.json", golden.PICTURE, golden.EXPECTED, golden.HEATMAPS}
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
        golden_sample=False,
    )
    built = read_archive(build(wanted))
    assert built.manifest.categories == ("__background__", "disc", "ring", "star")
    for name, expected in half.items():
        torch.testing.assert_close(built.weights[name], expected, rtol=0, atol=0)


def test_two_builds_of_one_process_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two containers have it: each places what it built, and nothing else is left."""
    archives = {write_small(tmp_path / f"{each}.mar", each): each for each in ("1.0", "1.1")}
    both = Barrier(2, timeout=60)

    def verify_with_the_other(path: Path) -> str:
        both.wait()
        version = verify(path).version
        both.wait()
        return version

    monkeypatch.setattr("archives.building.build.verify", verify_with_the_other)
    target = tmp_path / "out" / "demo.mar"
    target.parent.mkdir()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda packed: _place(packed, target), archives))
    assert list(target.parent.iterdir()) == [target]
    assert verify(target).version in archives.values()


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


def test_other_bytes_lose_the_signature_of_the_old(archive: Path, tmp_path: Path) -> None:
    target, signature = tmp_path / "a.mar", tmp_path / "a.mar.sig"
    for old, kept in ((archive.read_bytes(), True), (b"old", False)):
        target.write_bytes(old)
        signature.write_bytes(b"signed")
        _place(archive, target)
        assert (target.read_bytes(), signature.exists()) == (archive.read_bytes(), kept)


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
        (["--config", "no.yaml"], "config: no.yaml cannot be read"),
        (["--default", "colour=red"], "default field: got 'colour'; allowed: method, target"),
        (["--default", "smooth=2"], "default smooth: got '2'; allowed: a number from 0 to 1"),
        (["--default", "shared=true"], "default shared: got True; allowed: false, or center"),
        (["--default", "method=gradcamm"], "would not work: ArchiveError: "),
        (["--golden-picture", __file__], "test_build.py: not a picture"),
        (["--source-revision", "a b"], "source revision: got 'a b'"),
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

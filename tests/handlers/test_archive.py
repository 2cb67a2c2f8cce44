from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from archives.verify import extract
from handlers.archive import read_archive
from handlers.explainer import Explainer
from handlers.manifest import MANIFEST_NAME, ArchiveError
from tests.conftest import scene_picture


def test_a_mar_and_its_folder_are_one_detector(
    demo: Explainer, demo_archive: Path, tmp_path: Path
) -> None:
    extract(demo_archive, tmp_path / "demo")
    unpacked = Explainer.from_archive(tmp_path / "demo")
    assert unpacked.manifest == demo.manifest
    pair = [each.detect([scene_picture(1)])[0] for each in (demo, unpacked)]
    assert torch.equal(pair[0].boxes, pair[1].boxes)
    assert len(pair[0]) > 0


def test_other_code_is_warned_of(demo_archive: Path, tmp_path: Path) -> None:
    edited = tmp_path / "edited.mar"
    with zipfile.ZipFile(demo_archive) as source, zipfile.ZipFile(edited, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == MANIFEST_NAME:
                digest = read_archive(demo_archive).manifest.files["handlers/explainer.py"]
                data = data.replace(digest.encode(), b"0" * 64)
            target.writestr(name, data)
    with pytest.warns(UserWarning, match=r"handlers/explainer\.py differs"):
        Explainer.from_archive(edited)


def no_archive(path: Path) -> None:
    path.write_bytes(b"not a zip")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100_000])


def other_weights(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("weights.safetensors", b"other bytes")


def no_manifest(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("model.bin", b"")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "there is no archive at"),
        (no_archive, "not a .mar archive"),
        (truncated, "not a .mar archive, or is truncated"),
        (other_weights, "does not have the digest"),
        (no_manifest, f"has no {MANIFEST_NAME}"),
    ],
)
def test_damaged_archives(
    demo_archive: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "demo.mar"
    shutil.copyfile(demo_archive, path)
    damage(path)
    with pytest.raises(ArchiveError, match=message):
        Explainer.from_archive(path)

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from archives.__main__ import main
from archives.verify import TORCHSERVE_MANIFEST, UnsafeArchiveError, extract, verify
from handlers.manifest import FORMAT_VERSION, MANIFEST_NAME, ArchiveError, Manifest

Files = dict[str, bytes]
MODEL = {
    "modelName": "tiny",
    "modelVersion": "1.0",
    "handler": "explain_handler.py",
    "serializedFile": "weights.safetensors",
    "configFile": "model-config.yaml",
}
TORCHSERVE = {"runtime": "python", "model": MODEL, "archiverVersion": "0.12.0"}


def tiny_files(**changed: bytes) -> Files:
    """A valid archive's files; a change is made before the digests are taken."""
    files = {
        "explain_handler.py": b"raise SystemExit('never run')",
        "handlers/__init__.py": b"",
        "model-config.yaml": b"minWorkers: 1\n",
        "weights.safetensors": safetensors.torch.save({"a": torch.ones(3), "b": torch.ones(2, 2)}),
    }
    files |= {name.replace("__", "."): data for name, data in changed.items()}
    manifest = Manifest(
        name="tiny",
        version="1.0",
        architecture="fasterrcnn_resnet50_fpn",
        categories=("__background__", "disc"),
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )
    files[MANIFEST_NAME] = manifest.to_json()
    files[TORCHSERVE_MANIFEST] = json.dumps(TORCHSERVE).encode()
    return files


def packed(files: Files, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return buffer.getvalue()


def with_entry(entry: zipfile.ZipInfo | str, data: bytes = b"x") -> bytes:
    buffer = io.BytesIO(packed(tiny_files()))
    with zipfile.ZipFile(buffer, "a") as out:
        out.writestr(entry, data)
    return buffer.getvalue()


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("handlers/link")
    info.create_system = 3
    info.external_attr = 0o120777 << 16
    return info


def without(name: str) -> Files:
    return {key: data for key, data in tiny_files().items() if key != name}


def json_changed(name: str, **values: object) -> Files:
    files = tiny_files()
    return files | {name: json.dumps(json.loads(files[name]) | values).encode()}


def with_hidden_entry() -> bytes:
    """Java reads the second handler, Python the first: only one is in the zip's directory."""
    data = packed(tiny_files())
    hidden = packed({"explain_handler.py": b"import os"})
    hidden = hidden[: hidden.index(b"PK\1\2")]
    directory, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    offset = struct.pack("<I", directory + len(hidden))
    tail = data[end : end + 16] + offset + data[end + 20 :]
    return data[:directory] + hidden + data[directory:end] + tail


def other_local_name() -> bytes:
    data = packed(tiny_files())
    return data.replace(b"model-config.yaml", b"model-config.yamL", 1)


CORRUPT = packed(tiny_files()).replace(b"minWorkers: 1", b"minWorkers: 9")
DUPLICATE = packed(tiny_files() | {"Explain_handler.py": b"x"})
UNSAFE = {
    "changed file": (packed(tiny_files() | {"handlers/__init__.py": b"1"}), "handlers/__init__.py"),
    "changed bytes": (CORRUPT, "Bad CRC-32"),
    "unlisted": (with_entry("handlers/more.py"), "does not list: ['handlers/more.py']"),
    "unlisted in MAR-INF": (with_entry("MAR-INF/more.py"), "does not list: ['MAR-INF/more.py']"),
    "missing": (packed(without("model-config.yaml")), "are missing: ['model-config.yaml']"),
    "parent": (with_entry("../escaped.py"), "'../escaped.py' would leave"),
    "inner parent": (with_entry("handlers/../../escaped.py"), "would leave"),
    "absolute": (with_entry("/tmp/escaped.py"), "'/tmp/escaped.py' would leave"),
    "backslash": (with_entry("..\\escaped.py"), "would leave"),
    "folder": (with_entry("handlers/cam/", b""), "would leave"),
    "link": (with_entry(link(), b"/etc/passwd"), "handlers/link is a link"),
    "duplicate": (DUPLICATE, "holds Explain_handler.py twice"),
    "pickle": (packed(tiny_files(model__pth=b"x")), "model.pth: pickles can run code"),
    "bomb": (packed(tiny_files(a__py=b" " * 10**6), zipfile.ZIP_DEFLATED), "a.py is a zip bomb"),
    "hidden entry": (with_hidden_entry(), "data outside of its entries"),
    "other local name": (other_local_name(), "model-config.yaml differs from the zip's directory"),
    "truncated": (packed(tiny_files())[:-200], "is truncated or damaged: its end is missing"),
    "prefix": (b"#!/bin/sh\n" + packed(tiny_files()), "data outside of its entries"),
    "handler": (
        packed(json_changed(TORCHSERVE_MANIFEST, model=MODEL | {"handler": "os"})),
        "was tampered with: MAR-INF/MANIFEST.json",
    ),
    "more in MANIFEST": (
        packed(json_changed(TORCHSERVE_MANIFEST, requirementsFile="r.txt")),
        "was tampered with: MAR-INF/MANIFEST.json",
    ),
}
UNUSABLE = {
    "empty": (b"", "not a .mar archive"),
    "not a zip": (b"hello, world", "not a .mar archive"),
    "not Whybox's": (packed(without(MANIFEST_NAME)), "has no whybox.json"),
    "not JSON": (packed(tiny_files() | {MANIFEST_NAME: b"{"}), "whybox.json is not JSON"),
    "newer": (
        packed(json_changed(MANIFEST_NAME, format=FORMAT_VERSION + 1)),
        f"the archive has format {FORMAT_VERSION + 1}, this Whybox reads up to {FORMAT_VERSION}",
    ),
    "wrong types": (packed(json_changed(MANIFEST_NAME, files=[])), "categories is no list"),
    "no weights": (packed(json_changed(MANIFEST_NAME, weights="w.safetensors")), "no weights"),
    "no safetensors": (packed(tiny_files(weights__safetensors=b"x" * 99)), "is no safetensors"),
    "gaps": (
        packed(
            tiny_files(
                weights__safetensors=safetensors.torch.save({"a": torch.ones(3)}).replace(
                    b"[3]", b"[4]"
                )
            )
        ),
        "damaged header",
    ),
    "short": (
        packed(tiny_files(weights__safetensors=safetensors.torch.save({"a": torch.ones(3)})[:-4])),
        "truncated",
    ),
}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_extract(compression: int, tmp_path: Path) -> None:
    path = tmp_path / "tiny.mar"
    path.write_bytes(packed(tiny_files(), compression))
    manifest = extract(path, tmp_path / "new" / "out")
    assert manifest == verify(path)
    written = {
        file.relative_to(tmp_path / "new" / "out").as_posix(): file.read_bytes()
        for file in (tmp_path / "new" / "out").rglob("*")
        if file.is_file()
    }
    assert written == tiny_files()
    assert (tmp_path / "new" / "out").stat().st_mode & 0o777 == 0o700


def test_extract_refuses_a_folder_with_files(tmp_path: Path) -> None:
    (tmp_path / "tiny.mar").write_bytes(packed(tiny_files()))
    with pytest.raises(ArchiveError, match="is not empty"):
        extract(tmp_path / "tiny.mar", tmp_path)


@pytest.mark.parametrize("case", UNSAFE)
def test_unsafe(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(UNSAFE[case], 5, tmp_path, capsys)
    with pytest.raises(UnsafeArchiveError):
        extract(tmp_path / "bad.mar", tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["bad.mar"]


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(UNUSABLE[case], 2, tmp_path, capsys)


def check_refused(
    case: tuple[bytes, str], code: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, text = case
    (folder / "bad.mar").write_bytes(data)
    assert main(["verify", str(folder / "bad.mar")]) == code
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "no.mar")]) == 2
    assert "cannot be opened: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("where", [0, 8, 30, 60])
def test_damage_anywhere_is_an_archive_error(where: int, tmp_path: Path) -> None:
    """Every byte that is changed is noticed, and never by a crash."""
    data = bytearray(packed(tiny_files()))
    path = tmp_path / "tiny.mar"
    for position in range(where, len(data), 61):
        damaged = data.copy()
        damaged[position] ^= 0x41
        path.write_bytes(damaged)
        try:
            manifest = verify(path)
        except ArchiveError:
            continue
        # What is left are fields that nobody who unpacks it reads, such as times.
        assert manifest == reference(data, tmp_path)


def reference(data: bytearray, folder: Path) -> Manifest:
    (folder / "reference.mar").write_bytes(data)
    return verify(folder / "reference.mar")


def test_describes_what_it_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.mar").write_bytes(packed(tiny_files()))
    assert main(["verify", "--static", str(tmp_path / "tiny.mar")]) == 0
    digest = verify(tmp_path / "tiny.mar").digest
    said = f"tiny 1.0, fasterrcnn_resnet50_fpn, 1 categories, digest {digest}\n"
    assert capsys.readouterr().out.endswith(said)

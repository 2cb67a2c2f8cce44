"""Archives made to get past verify: bytes that only Java reads, headers that fill memory."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from archives.golden import read_golden
from archives.verify import (
    LOCAL_HEADER,
    TORCHSERVE_MANIFEST,
    UnsafeArchiveError,
    extract,
    verify,
)
from handlers.manifest import MANIFEST_NAME, ArchiveError, Manifest
from tests.archives.test_verify import MODEL, TORCHSERVE, packed, tiny_files

CONFIG = "model-config.yaml"


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def local(name: str, method: int, payload: bytes, data: bytes) -> bytes:
    """An entry as a reader that walks the file sees it: `payload` is said to be `data`."""
    sizes = (zlib.crc32(data), len(payload), len(data))
    header = LOCAL_HEADER.pack(b"PK\3\4", 20, 0, method, 0, 33, *sizes, len(name), 0)
    return header + name.encode() + payload


def by_hand(name: str, method: int, payload: bytes) -> bytes:
    """A valid archive but for one entry's payload, both of whose headers agree."""
    out, directory = io.BytesIO(), b""
    files = tiny_files()
    for each, data in files.items():
        how, held = (method, payload) if each == name else (zipfile.ZIP_STORED, data)
        sizes = (zlib.crc32(data), len(held), len(data))
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, how, 0, 33, *sizes, len(each), 0, 0, 0, 0, 0,
            out.tell(),
        ) + each.encode()  # fmt: skip
        out.write(local(each, how, held, data))
    count = len(files)
    end = (b"PK\5\6", 0, 0, count, count, len(directory), out.tell(), 0)
    return out.getvalue() + directory + struct.pack("<4s4H2IH", *end)


HANDLER = b"import os"
# Java finds this entry right behind the other's bytes, and its file replaces the real handler.
HIDDEN = local("explain_handler.py", zipfile.ZIP_STORED, HANDLER, HANDLER)
DATA = tiny_files()[CONFIG]


@pytest.mark.parametrize(("method", "payload"), [(0, DATA), (8, deflated(DATA))])
def test_what_is_built_by_hand_is_valid(method: int, payload: bytes, tmp_path: Path) -> None:
    (tmp_path / "good.mar").write_bytes(by_hand(CONFIG, method, payload))
    extract(tmp_path / "good.mar", tmp_path / "out")
    assert (tmp_path / "out" / CONFIG).read_bytes() == DATA


PAYLOADS = {
    "entry behind a stored file": (0, DATA + HIDDEN),
    "entry behind a deflated file": (8, deflated(DATA) + HIDDEN),
    "stored file that is too short": (0, DATA[:-1]),
    "deflated file that is too long": (8, deflated(DATA + b"more")),
    "deflated file that is too short": (8, deflated(DATA[:-1])),
    "deflated file without its end": (8, deflated(DATA)[:-1]),
    "no deflated file": (8, b"\xff" * 20),
    "nothing": (8, b""),
}


@pytest.mark.parametrize("case", PAYLOADS)
def test_an_entry_holds_its_file_and_nothing_else(case: str, tmp_path: Path) -> None:
    (tmp_path / "bad.mar").write_bytes(by_hand(CONFIG, *PAYLOADS[case]))
    with pytest.raises(UnsafeArchiveError):
        verify(tmp_path / "bad.mar")


@pytest.mark.parametrize("values", [
    {"name": "../../elsewhere"}, {"name": ""}, {"name": "a\nb"}, {"name": ".hidden"},
    {"version": "../1.0"}, {"version": ""}, {"version": "1.0\x1b[31m"},
    {"architecture": "\x1b]0;title\x07"},
])  # fmt: skip
def test_names_that_would_lead_elsewhere(values: dict[str, str], tmp_path: Path) -> None:
    files = tiny_files()
    manifest = json.loads(files[MANIFEST_NAME]) | values
    model = MODEL | {"modelName": manifest["name"], "modelVersion": manifest["version"]}
    files[MANIFEST_NAME] = json.dumps(manifest).encode()
    files[TORCHSERVE_MANIFEST] = json.dumps(TORCHSERVE | {"model": model}).encode()
    (tmp_path / "bad.mar").write_bytes(packed(files))
    with pytest.raises(UnsafeArchiveError, match="expected a name, a version"):
        verify(tmp_path / "bad.mar")


@pytest.mark.parametrize(
    "shape",
    [[-1, -1], [1.0], [True], ["x", 10**12], [[1], 10**12], [10**4000] * 3, [2**31 - 1] * 5, "1"],
)
def test_shapes_that_are_none(shape: object, tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(4)
    (tmp_path / "bad.mar").write_bytes(packed(tiny_files(weights__safetensors=weights)))
    with pytest.raises(ArchiveError, match="damaged header: the shape"):
        verify(tmp_path / "bad.mar")


@pytest.mark.parametrize("deep", [b"[" * 100_000, b"[" * 500 + b"]" * 500])
@pytest.mark.parametrize("name", [MANIFEST_NAME, TORCHSERVE_MANIFEST, "weights.safetensors"])
def test_json_that_is_too_deep(name: str, deep: bytes, tmp_path: Path) -> None:
    if name == "weights.safetensors":
        files = tiny_files(weights__safetensors=struct.pack("<Q", len(deep)) + deep)
    else:
        files = tiny_files() | {name: deep}
    (tmp_path / "bad.mar").write_bytes(packed(files))
    with pytest.raises(ArchiveError, match=r"recursion|too deep|does not agree|damaged header"):
        verify(tmp_path / "bad.mar")


@pytest.mark.parametrize("options", ["[" * 400 + "]" * 400, "1e999", "NaN"])
def test_manifests_that_could_not_be_told(options: str) -> None:
    text = tiny_files()[MANIFEST_NAME].replace(
        b'"options": {}', f'"options": {{"a": {options}}}'.encode()
    )
    assert options.encode() in text
    with pytest.raises(ArchiveError, match=r"too deep|not JSON"):
        Manifest.from_json(text)


@pytest.mark.parametrize("read", [verify, read_golden])
def test_a_name_in_broken_utf8(read: Callable[[Path], object], tmp_path: Path) -> None:
    data = bytearray(packed(tiny_files()))
    (directory,) = struct.unpack_from("<I", data, data.rfind(b"PK\5\6") + 16)
    data[directory + 9] |= 8  # the name is UTF-8
    data[directory + 46] = 0xFF
    (tmp_path / "bad.mar").write_bytes(data)
    with pytest.raises(ArchiveError, match="utf-8"):
        read(tmp_path / "bad.mar")

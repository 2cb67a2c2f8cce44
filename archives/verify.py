"""Verifying an archive from outside, before anything in it is unpacked, imported or loaded.

TorchServe unpacks a .mar by walking its local headers, Python by its central directory, so a zip
can be made to show each of them other files. Only archives in which the two agree pass.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from archives.names import NAME, VERSION
from archives.refusals import (
    EscapingPathError,
    MissingWeightsError,
    PickleError,
    TruncatedArchiveError,
    UnsafeArchiveError,
    ZipBombError,
)
from handlers.manifest import MANIFEST_NAME, TORCHSCRIPT, ArchiveError, Manifest

__all__ = ["TORCHSERVE_MANIFEST", "UnsafeArchiveError", "extract", "verify"]

TORCHSERVE_MANIFEST = "MAR-INF/MANIFEST.json"
PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".npy")
MAX_FILES = 10_000
MAX_BYTES = 2 * 1024**3 - 1
# Code compresses about 4:1; what compresses far better is there to fill a disk.
MAX_RATIO = 50
MAX_HEADER = 64 * 1024**2
CHUNK = 1024**2
MEMBER_NAME = re.compile(r"[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*")
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
DATA_TYPES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip


def verify(path: Path) -> Manifest:
    """The manifest of the archive at `path`, every file of which was checked; nothing is loaded.

    Raises UnsafeArchiveError for files that differ from the manifest or are not in it, and of its
    kinds EscapingPathError, PickleError, ZipBombError and TruncatedArchiveError;
    MissingWeightsError and NewerFormatError; another ArchiveError for a file that is not there, no
    zip, or not of Whybox.
    """
    with _opened(path) as file:
        return _verify(path, file, _discard)


def extract(path: Path, folder: Path) -> Manifest:
    """Verifies the archive and unpacks it into `folder`, which is new or empty; its mode is 0700.

    What is unpacked are the very bytes that were checked. Raises as `verify` does, and ArchiveError
    if the folder holds something; then, and on any error, nothing is left in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArchiveError(f"{folder} is not empty; give a new folder to unpack {path} into")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch,
        _opened(path) as file,
    ):
        content = Path(scratch, "content")
        content.mkdir(mode=0o700)

        def write(name: str) -> BinaryIO:
            target = content / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return target.open("xb")

        manifest = _verify(path, file, write)
        os.replace(content, folder)
    return manifest


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ArchiveError(f"the archive {path} cannot be opened: {error.strerror}") from error


def _no_zip(path: Path, file: BinaryIO, error: Exception) -> ArchiveError:
    """Why `file` could not be read as a zip: its directory stands at its end."""
    file.seek(0)
    if file.read(4) == b"PK\3\4":
        return TruncatedArchiveError(
            f"{path} is truncated or damaged: its end is missing ({error}); fetch or build it again"
        )
    return ArchiveError(f"{path} is not a .mar archive ({error})")


def _discard(name: str) -> BinaryIO:
    return open(os.devnull, "wb")


def _verify(path: Path, file: BinaryIO, write: Callable[[str], BinaryIO]) -> Manifest:
    try:
        with zipfile.ZipFile(file) as opened:
            members = _checked_members(path, file, opened)
            manifest = _manifest(path, opened, members)
            _check_names(path, manifest)
            _check_listed(path, manifest, members)
            for name, info in members.items():
                with write(name) as out:
                    digest = _copy(path, opened, info, out)
                expected = manifest.files.get(name, digest)
                if digest != expected:
                    raise UnsafeArchiveError(
                        f"{path} was tampered with or damaged: {name} has sha256 {digest[:12]}..."
                        f" and not {str(expected)[:12]}... as {MANIFEST_NAME} says;"
                        " fetch or build it again"
                    )
            _check_torchserve_manifest(path, manifest, _read(opened, TORCHSERVE_MANIFEST))
            if manifest.network != TORCHSCRIPT:
                _check_safetensors(path, opened, members[manifest.weights])
            return manifest
    except zipfile.BadZipFile as error:
        raise _no_zip(path, file, error) from error
    except UnicodeDecodeError as error:
        raise UnsafeArchiveError(f"{path} names a file in broken UTF-8: {error}") from error
    except (zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UnsafeArchiveError(f"{path} holds data that cannot be unpacked: {error}") from error


def _checked_members(
    path: Path, file: BinaryIO, opened: zipfile.ZipFile
) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by name, none of which has been read yet."""
    infos = opened.infolist()
    if len(infos) > MAX_FILES or sum(info.file_size for info in infos) > MAX_BYTES:
        raise ZipBombError(
            f"{path} would unpack to {sum(info.file_size for info in infos)} bytes in {len(infos)}"
            f" files; at most {MAX_BYTES} in {MAX_FILES} are accepted"
        )
    members: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    for info in infos:
        name = info.orig_filename
        kind = info.external_attr >> 16 & 0o170000
        if not MEMBER_NAME.fullmatch(name) or {".", ".."} & set(PurePosixPath(name).parts):
            raise EscapingPathError(f"{path}: the entry {name!r} would leave the archive's folder")
        if kind not in (0, 0o100000):
            raise EscapingPathError(f"{path}: the entry {name} is a link or no plain file")
        if name.casefold() in folded:
            raise UnsafeArchiveError(f"{path} holds {name} twice")
        if name.casefold().endswith(PICKLES):
            raise PickleError(
                f"{path} holds {name}: pickles can run code when read; build it with safetensors"
            )
        if info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise ZipBombError(f"{path}: {name} is a zip bomb ({info.file_size} bytes)")
        folded.add(name.casefold())
        members[name] = info
    _check_layout(path, file, opened)
    return members


def _check_layout(path: Path, file: BinaryIO, opened: zipfile.ZipFile) -> None:
    """Raises UnsafeArchiveError unless walking the local headers shows the same files."""
    offset = 0
    for info in sorted(opened.infolist(), key=lambda info: info.header_offset):
        file.seek(offset)
        header = file.read(LOCAL_HEADER.size)
        if info.header_offset != offset or len(header) < LOCAL_HEADER.size:
            raise UnsafeArchiveError(f"{path} holds data outside of its entries")
        magic, _, flags, method, _, _, crc, packed, size, name_length, extra = LOCAL_HEADER.unpack(
            header
        )
        local = (magic, flags, method, crc, packed, size, file.read(name_length))
        central = (
            b"PK\3\4",
            0,
            info.compress_type,
            info.CRC,
            info.compress_size,
            info.file_size,
            info.orig_filename.encode(),
        )
        if local != central or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsafeArchiveError(
                f"{path}: the header of {info.orig_filename} differs from the zip's directory, or"
                " is not as `python -m archives build` writes it"
            )
        file.seek(extra, os.SEEK_CUR)
        if not _fills(file, method, packed, size):
            raise UnsafeArchiveError(f"{path}: {info.orig_filename} holds data beside the file's")
        offset += LOCAL_HEADER.size + name_length + extra + packed
    if opened.start_dir != offset or opened.comment:
        raise UnsafeArchiveError(f"{path} holds data outside of its entries")


def _fills(file: BinaryIO, method: int, packed: int, size: int) -> bool:
    """Whether the next `packed` bytes are one file of `size` bytes and nothing more.

    Java goes on reading where the file ends, Python where the header says: between the two, entries
    can hide that only Java unpacks.
    """
    if method == zipfile.ZIP_STORED:
        return packed == size
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof and size >= 0:
        chunk = inflater.unconsumed_tail
        if not chunk:
            chunk = file.read(min(packed, CHUNK))
            packed -= len(chunk)
        found = inflater.decompress(chunk, CHUNK)
        if not chunk and not found:
            break  # it ends too early
        size -= len(found)
    return inflater.eof and not inflater.unused_data and packed == size == 0


def _manifest(path: Path, opened: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> Manifest:
    if MANIFEST_NAME not in members:
        raise ArchiveError(
            f"{path} has no {MANIFEST_NAME}: it was not built by `python -m archives build`"
        )
    if members[MANIFEST_NAME].file_size > MAX_HEADER:
        raise UnsafeArchiveError(f"{path}: {MANIFEST_NAME} is too large")
    try:
        return Manifest.from_json(_read(opened, MANIFEST_NAME))
    except ArchiveError as error:
        raise type(error)(f"{path}: {error}") from error


def _check_names(path: Path, manifest: Manifest) -> None:
    told = (manifest.name, manifest.version, manifest.architecture)
    if (
        not NAME.fullmatch(manifest.name)
        or not VERSION.fullmatch(manifest.version)
        or not manifest.architecture.isprintable()
    ):
        raise UnsafeArchiveError(
            f"{path}: expected a name, a version as 1.0 and an architecture, got {str(told)[:200]};"
            " a path or an address made of these could lead elsewhere"
        )


def _check_listed(path: Path, manifest: Manifest, members: dict[str, zipfile.ZipInfo]) -> None:
    unlisted = sorted(members.keys() - manifest.files.keys() - {MANIFEST_NAME, TORCHSERVE_MANIFEST})
    missing = sorted(manifest.files.keys() - members.keys())
    if manifest.weights not in manifest.files or manifest.weights in missing:
        raise MissingWeightsError(f"{path} has no weights, {manifest.weights}; build it again")
    if unlisted or missing:
        raise UnsafeArchiveError(
            f"{path} was tampered with or damaged: files that {MANIFEST_NAME} does not list:"
            f" {unlisted or 'none'}; listed files that are missing: {missing or 'none'}"
        )
    if manifest.model_file and manifest.model_file not in manifest.files:
        raise ArchiveError(f"{path} has no {manifest.model_file}; build it again")
    if TORCHSERVE_MANIFEST not in members:
        raise ArchiveError(f"{path} has no {TORCHSERVE_MANIFEST}; build it again")


def _read(opened: zipfile.ZipFile, name: str) -> bytes:
    with opened.open(name) as file:
        return file.read(MAX_HEADER)


def _copy(path: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo, out: BinaryIO) -> str:
    """Copies one file to `out`; its sha256 (hex)."""
    digest = hashlib.sha256()
    try:
        with opened.open(info) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                out.write(chunk)
    except zipfile.BadZipFile as error:
        raise UnsafeArchiveError(
            f"{path} was tampered with or damaged: {info.filename}: {error}"
        ) from error
    return digest.hexdigest()


def _check_torchserve_manifest(path: Path, manifest: Manifest, data: bytes) -> None:
    """TorchServe's own manifest names the code that it runs, so it has to say what build wrote."""
    try:
        values = json.loads(data)
    except ValueError as error:
        raise UnsafeArchiveError(f"{path}: {TORCHSERVE_MANIFEST} is not JSON") from error
    model = {
        "modelName": manifest.name,
        "modelVersion": manifest.version,
        "handler": "explain_handler.py",
        "serializedFile": manifest.weights,
        "configFile": "model-config.yaml",
    }
    if manifest.model_file:
        model["modelFile"] = manifest.model_file
    expected = {"runtime": "python", "model": model}
    if not isinstance(values, dict) or values | expected != values or len(values) > 3:
        raise UnsafeArchiveError(
            f"{path} was tampered with: {TORCHSERVE_MANIFEST} does not agree with {MANIFEST_NAME}"
        )


def _check_safetensors(path: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """The header describes exactly the bytes that follow it; no tensor is made."""
    name = info.filename
    with opened.open(info) as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or not 2 <= length <= min(MAX_HEADER, info.file_size - 8):
            raise ArchiveError(f"{path}: {name} is no safetensors file; build the archive again")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = _end_of_tensors(header)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArchiveError(f"{path}: {name} has a damaged header: {error}") from error
    if not header or end != info.file_size - 8 - length:
        raise ArchiveError(f"{path}: {name} holds no tensors or is truncated; build it again")


def _end_of_tensors(header: dict[str, Any]) -> int:
    """Where the last tensor ends, in bytes; raises ValueError if they leave gaps or overlap."""
    end = 0
    for begin, stop, kind, shape in sorted(
        (*each["data_offsets"], each["dtype"], each["shape"]) for each in header.values()
    ):
        size = DATA_TYPES[kind]
        for side in shape:
            # Anything else may multiply, too: text into gigabytes.
            if type(side) is not int or not 0 <= side <= MAX_BYTES or size > MAX_BYTES:
                raise ValueError(f"the shape {str(shape)[:100]} is none")
            size *= side
        if begin != end or stop - begin != size:
            raise ValueError(
                f"bytes {begin} to {stop} are not a {kind} of shape {str(shape)[:100]}"
            )
        end = stop
    return end

"""Reading an archive: its manifest and its weights, from a .mar file or an unpacked folder."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from handlers.manifest import MANIFEST_NAME, ArchiveError, Manifest


@dataclass(frozen=True)
class Archive:
    """manifest: what the archive says of itself. weights: tensors by name, on the CPU."""

    manifest: Manifest
    weights: dict[str, Tensor]


def read_archive(path: Path) -> Archive:
    """The archive at `path`; every byte used is checked against the manifest's digests.

    Warns if the code imported here differs from the archive's. Raises ArchiveError if there is no
    archive, it is damaged, or it is newer than this code. Whether it can be trusted is for whoever
    fetched it to find out first (`python -m archives verify`).
    """
    if path.is_dir():
        return _read(path, lambda name: (path / name).read_bytes())
    if not path.is_file():
        raise ArchiveError(
            f"there is no archive at {path}; 'make demo' builds model_store/demo.mar"
        )
    try:
        with zipfile.ZipFile(path) as opened:
            return _read(path, opened.read)
    except zipfile.BadZipFile as error:
        raise ArchiveError(f"{path} is not a .mar archive, or is truncated: {error}") from error


def _read(path: Path, read: Callable[[str], bytes]) -> Archive:
    def member(name: str) -> bytes:
        try:
            return read(name)
        except (KeyError, FileNotFoundError) as error:
            raise ArchiveError(f"{path} has no {name}; it is damaged or not of Whybox") from error

    manifest = Manifest.from_json(member(MANIFEST_NAME))
    data = member(manifest.weights)
    if hashlib.sha256(data).hexdigest() != manifest.files.get(manifest.weights):
        raise ArchiveError(
            f"{path}: {manifest.weights} does not have the digest in {MANIFEST_NAME}"
        )
    _warn_of_other_code(path, manifest)
    try:
        return Archive(manifest, safetensors.torch.load(data))
    except safetensors.SafetensorError as error:
        raise ArchiveError(f"{path}: {manifest.weights} cannot be read: {error}") from error


def _warn_of_other_code(path: Path, manifest: Manifest) -> None:
    here = Path(__file__).parent
    for name, digest in manifest.files.items():
        if name.startswith("handlers/"):
            file = here.parent / name
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                warnings.warn(
                    f"the code imported from {here} is not the code in {path} ({name} differs);"
                    " numbers may differ from those of its endpoint",
                    stacklevel=5,
                )
                return

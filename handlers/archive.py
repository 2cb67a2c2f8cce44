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

from handlers.loading import ModelSource
from handlers.manifest import MANIFEST_NAME, TORCHSCRIPT, ArchiveError, Manifest


@dataclass(frozen=True)
class Archive:
    """manifest: what the archive says of itself. weights: tensors by name, on the CPU; none where
    the network is `torchscript`. model_file: its source, b"" for none."""

    manifest: Manifest
    weights: dict[str, Tensor]
    torchscript: bytes = b""
    model_file: bytes = b""

    @property
    def source(self) -> ModelSource:
        """What its model is made of."""
        manifest = self.manifest
        code = (manifest.model_file, self.model_file) if manifest.model_file else None
        return ModelSource(
            architecture=manifest.architecture,
            num_classes=len(manifest.categories),
            options=manifest.options,
            layout=manifest.layout,
            network=manifest.network,
            model_file=code,
        )


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
        except (KeyError, OSError, ValueError) as error:
            raise ArchiveError(f"{path} has no {name}; it is damaged or not of Whybox") from error

    def checked(name: str) -> bytes:
        data = member(name)
        if hashlib.sha256(data).hexdigest() != manifest.files.get(name):
            raise ArchiveError(f"{path}: {name} does not have the digest in {MANIFEST_NAME}")
        return data

    manifest = Manifest.from_json(member(MANIFEST_NAME))
    data = checked(manifest.weights)
    code = checked(manifest.model_file) if manifest.model_file else b""
    _warn_of_other_code(path, manifest)
    if manifest.network == TORCHSCRIPT:
        return Archive(manifest, {}, torchscript=data, model_file=code)
    try:
        return Archive(manifest, safetensors.torch.load(data), model_file=code)
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

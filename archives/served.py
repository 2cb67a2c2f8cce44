"""The archives that a server serves: verified copies, several of one name by their versions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from archives.server_config import ServerConfigError
from archives.verify import UnsafeArchiveError, verify
from handlers.manifest import ArchiveError


@dataclass(frozen=True)
class Served:
    """name, version, digest: the archive's, by its manifest. file: its copy's name."""

    name: str
    version: str
    digest: str
    file: str


def copy_archives(
    archives: Sequence[Path], store: Path, digests: Sequence[str] = ()
) -> tuple[Served, ...]:
    """Copies into the store, verified there: what TorchServe reads is what was checked.

    digests: those that may be served, none for any. Raises ArchiveError, UnsafeArchiveError for an
    archive that was tampered with or has another digest, and ServerConfigError for none at all, or
    two of one name and version.
    """
    if not archives:
        raise ServerConfigError("no archive to serve; give at least one")
    found: list[Served] = []
    for number, archive in enumerate(archives):
        each = _copy(archive, store / f"{number}.mar")
        if digests and each.digest not in digests:
            raise UnsafeArchiveError(
                f"{archive} has digest {each.digest}; expected, as configured,"
                f" {' or '.join(digests)}"
            )
        if any((each.name, each.version) == (other.name, other.version) for other in found):
            raise ServerConfigError(
                f"two archives are {each.name} {each.version}; serve one of them, or build one"
                " with another --version"
            )
        found.append(each)
    return tuple(found)


def _copy(archive: Path, copy: Path) -> Served:
    if not archive.is_file():
        raise ArchiveError(f"there is no archive at {archive}; build it or correct the path")
    shutil.copyfile(archive, copy)
    try:
        manifest = verify(copy)
    except ArchiveError as error:
        raise type(error)(str(error).replace(str(copy), str(archive))) from error
    return Served(manifest.name, manifest.version, manifest.digest, copy.name)

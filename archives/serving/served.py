"""The archives that a server serves: verified copies, several of one name by their versions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from archives.serving.server_config import ServerConfigError
from archives.signatures.signing import PublicKey, SignatureError, check_signature, signature_of
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
    archives: Sequence[Path],
    store: Path,
    digests: Sequence[str] = (),
    keys: Sequence[PublicKey] = (),
) -> tuple[Served, ...]:
    """Copies into the store, verified there: what TorchServe reads is what was checked.

    digests: those that may be served, none for any. keys: if there are any, one of them has to
    vouch for each archive by its ARCHIVE.sig. Raises ArchiveError, UnsafeArchiveError for an
    archive that was tampered with or has another digest, SignatureError, and ServerConfigError for
    no archive at all, or two of one name and version.
    """
    if not archives:
        raise ServerConfigError("no archive to serve; give at least one")
    found: list[Served] = []
    for number, archive in enumerate(archives):
        each = copy_archive(archive, store / f"{number}.mar", digests, keys)
        if any((each.name, each.version) == (other.name, other.version) for other in found):
            raise ServerConfigError(
                f"two archives are {each.name} {each.version}; serve one of them, or build one"
                " with another --version"
            )
        found.append(each)
    return tuple(found)


def copy_archive(
    archive: Path, copy: Path, digests: Sequence[str] = (), keys: Sequence[PublicKey] = ()
) -> Served:
    """One of them, as above."""
    if not archive.is_file():
        raise ArchiveError(f"there is no archive at {archive}; build it or correct the path")
    shutil.copyfile(archive, copy)
    try:
        if keys:  # before anything in it is read
            check_signature(copy, keys, signature_of(archive))
        manifest = verify(copy)
    except (ArchiveError, SignatureError) as error:
        raise type(error)(str(error).replace(str(copy), str(archive))) from error
    if digests and manifest.digest not in digests:
        raise UnsafeArchiveError(
            f"{archive} has digest {manifest.digest}; expected, as configured,"
            f" {' or '.join(digests)}"
        )
    return Served(manifest.name, manifest.version, manifest.digest, copy.name)

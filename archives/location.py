"""Where an archive is: a file, an s3:// object, or NAME@ALIAS and NAME@VERSION of a registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from archives.errors import (
    DeniedObjectError,
    MissingObjectError,
    UnsafeError,
    UsageError,
    shortened,
)
from archives.names import SIGNATURE_SUFFIX, SUFFIX, looks_like_reference, read_reference
from archives.stores.opening import open_root, split_uri
from archives.stores.store import S3_SCHEME
from handlers.manifest import ArchiveError


class Fetched(NamedTuple):
    """An archive on this machine. signature: its file, or None; nobody checked either."""

    path: Path
    signature: Path | None


def fetched(text: str, folder: Path, registry: str | None = None) -> Fetched:
    """The archive that `text` names; what is no local file is downloaded into `folder`, which is
    private to the caller and has no other archive.

    registry: where NAME@ALIAS is looked up, by default WHYBOX_REGISTRY; a file of that name goes
    before it. Raises UsageError for a text that names nothing, and what stores and registries
    raise. A file that is not there is left to `verify` to tell.
    """
    if text.startswith(S3_SCHEME):
        return _downloaded(text, folder)
    path = Path(text)
    if looks_like_reference(text) and not os.path.lexists(path):
        return _from_registry(text, folder, registry)
    signature = path.with_name(path.name + SIGNATURE_SUFFIX) if path.name else path
    return Fetched(path, signature if signature.is_file() else None)


def _from_registry(text: str, folder: Path, registry: str | None) -> Fetched:
    from archives.registry.registry import Registry  # with pydantic, which other places do without

    try:
        opened = Registry.open(registry)
        found = opened.fetch(opened.resolve(read_reference(text)), folder)
    except UnsafeError:
        raise
    except (UsageError, ArchiveError) as error:
        raise UsageError(f"the archive {shortened(text)}: {error}") from error
    return Fetched(found.path, found.signature)


def _downloaded(uri: str, folder: Path) -> Fetched:
    root, key = split_uri(uri)
    store = open_root(root)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"archive{SUFFIX}"
    signature = folder / (path.name + SIGNATURE_SUFFIX)
    try:
        store.read_file(key, path)
    except MissingObjectError as error:
        raise UsageError(f"there is no archive {shortened(uri)}") from error
    try:
        store.read_file(key + SIGNATURE_SUFFIX, signature)
    except (MissingObjectError, DeniedObjectError):
        # S3 denies what is not there to those who may not list; who wants a signature refuses both.
        signature.unlink(missing_ok=True)
        return Fetched(path, None)
    return Fetched(path, signature)

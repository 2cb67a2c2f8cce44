"""Places as people name them, s3:// URIs and folders, opened as stores."""

from __future__ import annotations

import os
from pathlib import Path

from archives.errors import UsageError, shortened
from archives.stores.store import S3_SCHEME, S3Settings, Store


def split_uri(uri: str) -> tuple[str, str]:
    """A place as (root, path): ("s3://bucket", "a/b") or ("/", "home/me/pictures").

    The root can be given to `open_root`. Raises UsageError for a scheme other than s3.
    """
    if uri.startswith(S3_SCHEME):
        bucket, _, prefix = uri[len(S3_SCHEME) :].partition("/")
        if not bucket:
            raise UsageError(f"{shortened(uri)!r} names no bucket; expected s3://bucket/prefix")
        return S3_SCHEME + bucket, prefix
    if "://" in uri:
        raise UsageError(
            f"{shortened(uri)!r}: expected s3://bucket/prefix or a path; other schemes are unknown"
        )
    if not uri:
        raise UsageError("an empty path; expected s3://bucket/prefix or a folder")
    return "/", os.path.abspath(uri).lstrip("/")


def open_root(root: str, settings: S3Settings | None = None) -> Store:
    """The store at a root that `split_uri` gave: a bucket, or the file system.

    settings: by default the environment's.
    """
    if root.startswith(S3_SCHEME):
        from archives.stores.s3 import S3Store, connect  # half a second that folders need not pay

        chosen = settings or S3Settings.from_environment()
        return S3Store(connect(chosen), root[len(S3_SCHEME) :], attempts=chosen.attempts)
    from archives.stores.folder import FolderStore  # which imports this module

    return FolderStore(Path(root))


def open_store(uri: str, settings: S3Settings | None = None) -> Store:
    """The store whose root is `uri`, a bucket's prefix or a folder (which need not exist yet)."""
    root, path = split_uri(uri)
    return open_root(root, settings).below(path.rstrip("/") + "/" if path.strip("/") else "")

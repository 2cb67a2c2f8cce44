"""Object stores and folders behind one small interface: list, read, write."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from jobs.errors import (
    DeniedObjectError,
    MissingObjectError,
    StoreDownError,
    StoreRefusedError,
    UsageError,
)
from jobs.names import shortened

S3_SCHEME = "s3://"
CONNECTIONS = 16


class Entry(NamedTuple):
    """One object or file.

    key: its path below the store's root, with forward slashes.
    size: bytes; -1 for a link that leads nowhere.
    tag: changes when the content does: an S3 ETag, or a file's modification time in nanoseconds.
    """

    key: str
    size: int
    tag: str


class Store(Protocol):
    """Objects by key below a root; safe to use from several threads.

    uri: the root, for messages.
    Every call raises StoreRefusedError (no such bucket, wrong credentials, cannot be written) and
    StoreDownError (no answer after retries, no space left).
    """

    uri: str

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Everything whose key starts with `prefix`: "" or a folder with its final slash.

        In no promised order. Raises MissingObjectError for a folder that is not there (a bucket
        has no folders: there, nothing is found).
        """
        ...

    def find(self, key: str) -> Entry | None:
        """The object or file (no folder) of exactly this key, or None."""
        ...

    def read(self, key: str) -> bytes:
        """The whole object. Raises MissingObjectError, and DeniedObjectError if it is there but
        may not be read."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Writes or replaces the whole object at once: nobody ever reads half of it."""
        ...

    def below(self, prefix: str) -> Store:
        """The store whose root is the folder `prefix` ("" or ending with a slash) of this one."""
        ...


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


def open_root(root: str) -> Store:
    """The store at a root that `split_uri` gave: a bucket, or the file system."""
    if root.startswith(S3_SCHEME):
        from jobs.s3 import S3Store, connect  # half a second that folders need not pay

        return S3Store(connect(CONNECTIONS), root[len(S3_SCHEME) :])
    return FolderStore(Path(root))


def open_store(uri: str) -> Store:
    """The store whose root is `uri`, a bucket's prefix or a folder (which need not exist yet)."""
    root, path = split_uri(uri)
    return open_root(root).below(path.rstrip("/") + "/" if path.strip("/") else "")


class FolderStore:
    """A folder of the file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def below(self, prefix: str) -> FolderStore:
        return FolderStore(self.root / prefix)

    def find(self, key: str) -> Entry | None:
        path = self.root / key
        status = _status(path)
        return _entry(str(path), key) if status and stat.S_ISREG(status.st_mode) else None

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        folder = self.root / prefix
        status = _status(folder)
        if not status or not stat.S_ISDIR(status.st_mode):
            raise MissingObjectError(f"there is no folder {shortened(str(folder))}")
        for parent, _, names in os.walk(folder, onerror=_refuse):
            for name in names:
                path = os.path.join(parent, name)
                entry = _entry(path, os.path.relpath(path, self.root))
                if entry:
                    yield entry

    def read(self, key: str) -> bytes:
        path = self.root / key
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise MissingObjectError(f"there is no file {shortened(str(path))}") from error
        except OSError as error:
            # A bad sector is that file's own; it must not stop the job for ever.
            down = error.errno in _MAY_PASS - {errno.EIO}
            kind = StoreDownError if down else DeniedObjectError
            raise kind(_says(path, "read", error)) from error

    def write(self, key: str, data: bytes) -> None:
        path = self.root / key
        part: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # In the same folder, so that the renaming is atomic; of its own name, so that two
            # writers do not meet.
            part = path.parent / f".whybox-{uuid.uuid4().hex}.part"
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            kind = StoreDownError if error.errno in _MAY_PASS else StoreRefusedError
            raise kind(_says(path, "written", error)) from error
        finally:
            if part is not None:
                _remove(part)


# No room, a failing disk, a file server that does not answer: a later try may succeed. After any
# other error it would fail again.
_MAY_PASS = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EDQUOT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EIO,
    errno.EMFILE,
    errno.ENETUNREACH,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


def _says(path: Path, done: str, error: OSError) -> str:
    return f"{shortened(str(path))} cannot be {done}: {error.strerror}"


def _status(path: Path) -> os.stat_result | None:
    """None if there is nothing at `path`."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreRefusedError(_says(path, "read", error)) from error


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


def _entry(path: str, key: str) -> Entry | None:
    key = key.replace(os.sep, "/")
    try:
        status = os.stat(path)
    except OSError:
        return Entry(key, -1, "unreadable")  # listed, so that reading it says why
    if not stat.S_ISREG(status.st_mode):
        return None
    return Entry(key, status.st_size, str(status.st_mtime_ns))


def _refuse(error: OSError) -> None:
    raise StoreRefusedError(f"{error.filename} cannot be listed: {error.strerror}") from error

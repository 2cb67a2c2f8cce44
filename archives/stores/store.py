"""Object stores and folders behind one small interface: list, read, write."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from archives.errors import (
    DeniedObjectError,
    MissingObjectError,
    StoreDownError,
    StoreRefusedError,
    UsageError,
    shortened,
)

S3_SCHEME = "s3://"
CONNECTIONS = 16


@dataclass(frozen=True)
class S3Settings:
    """How patient a client of S3 is, and how wide.

    connections: the pool's width; as many threads can use one store without waiting.
    connect_seconds, read_seconds: the longest wait for a connection, and for the next bytes.
    attempts: how often a request is sent at most.
    """

    connections: int = CONNECTIONS
    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    attempts: int = 10

    @classmethod
    def from_environment(cls) -> S3Settings:
        """From WHYBOX_S3_CONNECTIONS, WHYBOX_S3_CONNECT_SECONDS, WHYBOX_S3_READ_SECONDS and
        boto3's AWS_MAX_ATTEMPTS; raises UsageError if one is no positive number."""
        return cls(
            int(_positive("WHYBOX_S3_CONNECTIONS", cls.connections, whole=True)),
            _positive("WHYBOX_S3_CONNECT_SECONDS", cls.connect_seconds),
            _positive("WHYBOX_S3_READ_SECONDS", cls.read_seconds),
            int(_positive("AWS_MAX_ATTEMPTS", cls.attempts, whole=True)),
        )


def _positive(name: str, default: float, whole: bool = False) -> float:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = 0
    if not 0 < number < math.inf:
        kind = "whole number" if whole else "number of seconds"
        raise UsageError(f"{name}: expected a positive {kind}, got {shortened(text)!r}")
    return number


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
    A call that sees a passing fault (too busy, a broken connection) tries again by itself.
    Every call raises StoreRefusedError (no such bucket, wrong credentials, cannot be written) and
    StoreDownError (no answer after retries, no space left).
    """

    uri: str

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Everything whose key starts with `prefix`: "" or a folder with its final slash.

        Streams, in the order of the keys compared as strings, where the store lists so (folders
        and S3 do). Raises MissingObjectError for a folder that is not there (a bucket has no
        folders: there, nothing is found).
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

    def write_file(self, key: str, path: Path) -> None:
        """As `write`, from a local file of any size. Raises OSError if that cannot be read."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Writes only if nothing is there; whether what is there now is `data`.

        Of several writers of different data one is told True, and nothing is overwritten; but a
        store that does not know conditional writes, or applies them loosely (OpenStack Swift), may
        tell several. A request whose answer was lost cannot be told from another's, so writers
        that must know each other apart put something of their own into `data`.
        """
        ...

    def delete(self, key: str) -> None:
        """Removes the object, if it is there."""
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


def open_root(root: str, settings: S3Settings | None = None) -> Store:
    """The store at a root that `split_uri` gave: a bucket, or the file system.

    settings: by default the environment's.
    """
    if root.startswith(S3_SCHEME):
        from archives.stores.s3 import S3Store, connect  # half a second that folders need not pay

        chosen = settings or S3Settings.from_environment()
        return S3Store(connect(chosen), root[len(S3_SCHEME) :], attempts=chosen.attempts)
    return FolderStore(Path(root))


def open_store(uri: str, settings: S3Settings | None = None) -> Store:
    """The store whose root is `uri`, a bucket's prefix or a folder (which need not exist yet)."""
    root, path = split_uri(uri)
    return open_root(root, settings).below(path.rstrip("/") + "/" if path.strip("/") else "")


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
        yield from self._walk(prefix)

    def _walk(self, prefix: str) -> Iterator[Entry]:
        folder = os.path.join(self.root, prefix)
        try:
            with os.scandir(folder) as found:
                # A folder sorts as its keys do: with the slash that follows its name.
                names = sorted(
                    each.name + "/" * each.is_dir(follow_symlinks=False) for each in found
                )
        except OSError as error:
            raise StoreRefusedError(f"{folder} cannot be listed: {error.strerror}") from error
        for name in names:
            if name.endswith("/"):
                yield from self._walk(prefix + name)
            elif not (name.startswith(_PART) and name.endswith(_PART_SUFFIX)):
                entry = _entry(os.path.join(folder, name), prefix + name)
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
        self._place(key, lambda file: file.write(data), _replace)

    def write_file(self, key: str, path: Path) -> None:
        with path.open("rb") as source:
            self._place(key, lambda file: shutil.copyfileobj(source, file, _CHUNK), _replace)

    def create(self, key: str, data: bytes) -> bool:
        for _ in range(_CREATE_ATTEMPTS):
            if self._place(key, lambda file: file.write(data), _link):
                return True
            # A file server may link, lose its answer and refuse the second try: so look. What is
            # deleted meanwhile is created once more.
            with contextlib.suppress(MissingObjectError):
                return self.read(key) == data
        raise StoreRefusedError(f"{self.root / key} cannot be written: what is there is no file")

    def delete(self, key: str) -> None:
        try:
            _remove(self.root / key)
        except IsADirectoryError:
            return  # a folder is no object
        except OSError as error:
            raise _failure(self.root / key, "deleted", error) from error

    def _place(
        self,
        key: str,
        fill: Callable[[BinaryIO], object],
        move: Callable[[Path, Path], bool],
    ) -> bool:
        """Fills a new file and moves it to its place; False if `move` finds that taken."""
        path = self.root / key
        part: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # In the same folder, so that the renaming is atomic; of its own name, so that two
            # writers do not meet.
            part = path.parent / f"{_PART}{uuid.uuid4().hex}{_PART_SUFFIX}"
            with part.open("xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            return move(part, path)
        except OSError as error:
            raise _failure(path, "written", error) from error
        finally:
            if part is not None:
                _remove(part)


def _replace(part: Path, path: Path) -> bool:
    os.replace(part, path)
    return True


def _link(part: Path, path: Path) -> bool:
    """Gives the file its second name; False if that is taken. Atomic, as a renaming is not."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return not os.path.lexists(path) and _replace(part, path)
    return True


_CHUNK = 2**20
_CREATE_ATTEMPTS = 10
# A writer that is killed leaves its part behind; such files are no objects.
_PART, _PART_SUFFIX = ".whybox-", ".part"
# What file systems without hard links say: mounted buckets, FAT, some network drives.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
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


def _failure(path: Path, done: str, error: OSError) -> StoreDownError | StoreRefusedError:
    kind = StoreDownError if error.errno in _MAY_PASS else StoreRefusedError
    return kind(_says(path, done, error))


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
    try:
        status = os.stat(path)
    except OSError:
        # Listed, so that reading it says why; unless it was deleted a moment ago.
        return Entry(key, -1, "unreadable") if os.path.lexists(path) else None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Entry(key, status.st_size, str(status.st_mtime_ns))

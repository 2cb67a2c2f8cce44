"""A folder of the file system as a store."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from archives.errors import (
    DeniedObjectError,
    MissingObjectError,
    NotPromisedError,
    StoreDownError,
    StoreRefusedError,
    shortened,
)
from archives.stores.store import Entry


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
            elif not (name.startswith(_PART) and name.endswith((_PART_SUFFIX, _LOCK_SUFFIX))):
                entry = _entry(os.path.join(folder, name), prefix + name)
                if entry:
                    yield entry

    def read(self, key: str) -> bytes:
        path = self.root / key
        with _reading(path):
            return path.read_bytes()

    def read_file(self, key: str, path: Path) -> None:
        source = self.root / key
        with _reading(source):
            opened = source.open("rb")
        with opened, path.open("wb") as file:
            while True:
                with _reading(source):
                    chunk = opened.read(_CHUNK)
                if not chunk:
                    return
                file.write(chunk)

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        # Not the time of modification, which two writes may share.
        data = self.read(key)
        return data, hashlib.sha256(data).hexdigest()

    def write(self, key: str, data: bytes) -> None:
        self._place(key, lambda file: file.write(data), _replace)

    def write_file(self, key: str, path: Path) -> None:
        with path.open("rb") as source:
            self._place(key, lambda file: shutil.copyfileobj(source, file, _CHUNK), _replace)

    def create(self, key: str, data: bytes) -> bool:
        return self._create(key, lambda file: file.write(data), lambda found: found.read() == data)

    def create_file(self, key: str, path: Path) -> bool:
        with path.open("rb") as source:

            def fill(file: BinaryIO) -> None:
                source.seek(0)
                shutil.copyfileobj(source, file, _CHUNK)

            def same(found: BinaryIO) -> bool:
                source.seek(0)
                return all(
                    source.read(_CHUNK) == chunk for chunk in _chunks(found)
                ) and not source.read(1)

            return self._create(key, fill, same)

    def _create(
        self,
        key: str,
        fill: Callable[[BinaryIO], object],
        same: Callable[[BinaryIO], bool],
    ) -> bool:
        path = self.root / key
        for _ in range(_CREATE_ATTEMPTS):
            if self._place(key, fill, _link):
                return True
            # A file server may link, lose its answer and refuse the second try: so look. What is
            # deleted meanwhile is created once more.
            with contextlib.suppress(MissingObjectError), _reading(path), path.open("rb") as found:
                return same(found)
        raise StoreRefusedError(f"{path} cannot be written: what is there is no file")

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        path = self.root / key
        if _status(path) is None:
            return False  # and no lock is left in a folder that has nothing to replace
        with _locked(path):
            try:
                found, current = self.read_tagged(key)
            except MissingObjectError:
                return False
            if current != tag:
                return found == data
            return self._place(key, lambda file: file.write(data), _replace)

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


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise MissingObjectError(f"there is no file {shortened(str(path))}") from error
    except OSError as error:
        # A bad sector is that file's own; it must not stop the job for ever.
        down = error.errno in _MAY_PASS - {errno.EIO}
        kind = StoreDownError if down else DeniedObjectError
        raise kind(_says(path, "read", error)) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else, thread or process, replaces a file of this folder; ends with the process.

    The lock's file stays: whoever removed it could leave two with a lock each.
    """
    try:
        file = os.open(path.parent / f"{_PART}replace{_LOCK_SUFFIX}", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _failure(path, "written", error) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise NotPromisedError(
                f"{shortened(str(path.parent))}: files cannot be locked there ({error.strerror})"
            ) from error
        yield
    finally:
        os.close(file)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(_CHUNK), b"")


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
_PART, _PART_SUFFIX, _LOCK_SUFFIX = ".whybox-", ".part", ".lock"
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

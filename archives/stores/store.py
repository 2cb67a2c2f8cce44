"""Object stores and folders behind one small interface: list, read, write."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from archives.errors import (
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

    def read_file(self, key: str, path: Path) -> None:
        """Writes the whole object, of any size, to the local file `path`, which is replaced. Errors
        as for `read`, and OSError if the file cannot be written."""
        ...

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """As `read`, and the tag of just this content, for `replace`."""
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

    def create_file(self, key: str, path: Path) -> bool:
        """As `create`, from a local file of at most 5 GB. Raises OSError if that cannot be read."""
        ...

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Writes only if the object is still the one that `read_tagged` gave with `tag`; whether
        what is there now is `data`.

        Of several writers with one tag one is told True. As for `create`, writers that must know
        each other apart put something of their own into `data`: one that is told False may have
        written, if its answer was lost and another replaced what it wrote. A tag may come back with
        its content. Raises NotPromisedError, having written nothing, where the store knows no
        conditional writes (OpenStack Swift), or the file system no locks.
        """
        ...

    def delete(self, key: str) -> None:
        """Removes the object, if it is there."""
        ...

    def below(self, prefix: str) -> Store:
        """The store whose root is the folder `prefix` ("" or ending with a slash) of this one."""
        ...

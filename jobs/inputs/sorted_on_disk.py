"""Entries on disk: kept in the order given, or sorted, in memory that does not grow with them."""

from __future__ import annotations

import heapq
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import chain, islice
from typing import IO, Final

from archives.errors import StoreDownError
from archives.stores.store import Entry

# Entries that are sorted in memory at a time: some 15 MB.
SORTED_AT_ONCE = 8_192
# Sorted runs that are merged at a time: of each one block is in memory, 10 MB of all.
MERGED_AT_ONCE = 200
BLOCK = 128
LENGTH_BYTES: Final = 4


def no_room(what: str, error: OSError) -> StoreDownError:
    """The error of a temporary file that cannot be written; what: what was to be in it."""
    return StoreDownError(
        f"{what} cannot be kept in {tempfile.gettempdir()}: {error.strerror}; make room there, or"
        " set TMPDIR to a folder of another disk"
    )


def write_all(file: IO[bytes], data: bytes) -> None:
    """Writes to a file without a buffer, which would be written once more when the file is closed
    after an error, and hide that with another. Such a file may take less than it is given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


class Spool(AbstractContextManager["Spool"]):
    """Entries in a temporary file without a name, which is gone when it is closed.

    In blocks: LENGTH_BYTES of a block's length, then JSON, which keeps every key exactly (escaped
    to ASCII, so also one that is not UTF-8). A block is read at its place in the file, so that
    any number of readers do not disturb each other.
    """

    def __init__(self) -> None:
        self.size = 0
        self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115 - see close
            "wb", buffering=0, prefix="whybox-"
        )

    def extend(self, entries: Iterable[Entry]) -> None:
        """Appends the entries. Raises StoreDownError if the disk is full."""
        rest = iter(entries)
        try:
            while block := list(islice(rest, BLOCK)):
                data = json.dumps(block, separators=(",", ":")).encode()
                write_all(self._file, len(data).to_bytes(LENGTH_BYTES, "little") + data)
                self.size += LENGTH_BYTES + len(data)
        except OSError as error:
            raise no_room("the listing", error) from error

    def read(self, start: int = 0, end: int | None = None) -> Iterator[Entry]:
        """The entries between two places, in bytes, at which `size` stood between `extend`s."""
        descriptor = self._file.fileno()
        place, end = start, self.size if end is None else end
        while place < end:
            length = int.from_bytes(os.pread(descriptor, LENGTH_BYTES, place), "little")
            block = json.loads(os.pread(descriptor, length, place + LENGTH_BYTES))
            yield from map(Entry._make, block)
            place += LENGTH_BYTES + length

    def close(self) -> None:
        """Gives the file's room back; may be called twice."""
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()


class SortedOnDisk(AbstractContextManager["SortedOnDisk"]):
    """Takes entries in any order; gives them in the order of their keys, each key once.

    Sorted parts ("runs") stand one after the other in a spool and are merged when they are read.
    What comes in order already, as an S3 listing does, is a single run.
    """

    def __init__(
        self, sorted_at_once: int = SORTED_AT_ONCE, merged_at_once: int = MERGED_AT_ONCE
    ) -> None:
        self.count = 0
        self._sorted_at_once = sorted_at_once
        self._merged_at_once = merged_at_once
        self._waiting: list[Entry] = []
        self._spool = Spool()
        # Where each run begins in the spool and where it ends.
        self._runs: list[tuple[int, int]] = []
        self._last: Entry | None = None

    def add(self, entry: Entry) -> None:
        """Takes one more, before any is read; `count` counts them, equal ones too."""
        self._waiting.append(entry)
        self.count += 1
        if len(self._waiting) >= self._sorted_at_once:
            self._write()

    def extend(self, entries: Iterable[Entry]) -> None:
        """`add` for each."""
        for entry in entries:
            self.add(entry)

    def read(self) -> Iterator[Entry]:
        """The entries in the order of their keys; of several with one key the greatest, so that
        the result does not depend on the order they came in."""
        self._write()
        while len(self._runs) > self._merged_at_once:
            self._merge_runs()
        return _each_key_once(self._merged(self._runs))

    def close(self) -> None:
        """Gives the disk's room back."""
        self._waiting.clear()
        self._spool.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def runs(self) -> int:
        """How many sorted parts there are on disk."""
        return len(self._runs)

    def _write(self) -> None:
        if not self._waiting:
            return
        self._waiting.sort()
        start = self._spool.size
        self._spool.extend(self._waiting)
        if self._last is not None and self._last <= self._waiting[0]:
            start, _ = self._runs.pop()  # it goes on where the last run ended
        self._runs.append((start, self._spool.size))
        self._last = self._waiting[-1]
        self._waiting.clear()

    def _merge_runs(self) -> None:
        """One pass: every `merged_at_once` runs become one, in a new spool."""
        merged = Spool()
        runs = []
        for first in range(0, len(self._runs), self._merged_at_once):
            start = merged.size
            merged.extend(self._merged(self._runs[first : first + self._merged_at_once]))
            runs.append((start, merged.size))
        self._spool.close()
        self._spool, self._runs = merged, runs

    def _merged(self, runs: Iterable[tuple[int, int]]) -> Iterator[Entry]:
        return heapq.merge(*(self._spool.read(start, end) for start, end in runs))


def _each_key_once(entries: Iterator[Entry]) -> Iterator[Entry]:
    waiting = next(entries, None)
    for entry in chain(entries, [None]):
        if waiting is not None and (entry is None or entry.key != waiting.key):
            yield waiting
        waiting = entry

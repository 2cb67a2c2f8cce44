"""The plan: a job's listing as it is kept in its output, cut into shards that stay as they are."""

from __future__ import annotations

import threading
from itertools import islice
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from archives.errors import ConflictError, MissingObjectError, shortened
from archives.stores.store import Entry, Store
from jobs.inputs.listing import PLAN, Listing
from jobs.names import encoded, printable

PIECE_ROWS = 8_192
NAMED = 3
COLUMNS = pa.schema(
    [
        pa.field(name, kind, nullable=name == "exact")
        for name, kind in (
            ("key", pa.string()),
            ("exact", pa.string()),
            ("size", pa.int64()),
            ("tag", pa.string()),
        )
    ]
)


def write_plan(listing: Listing, output: Store, shard_size: int) -> None:
    """Writes the listing to OUTPUT/listing/00000.parquet, 00001.parquet, ...

    Each holds a whole number of shards and about PIECE_ROWS rows at most: key (printable), exact
    (percent-encoded where the key is not UTF-8, else null), size and tag. Equal listings give
    equal bytes.
    """
    entries = listing.entries()
    rows = _shards_in_a_piece(shard_size) * shard_size
    number = 0
    while piece := list(islice(entries, rows)):
        output.write(_place(number), _packed(piece))
        number += 1


class Plan:
    """Reads what `write_plan` wrote, on any machine; safe to use from several threads.

    shards: how many there are; all but the last hold `shard_size` pictures.
    """

    def __init__(self, output: Store, shard_size: int, pictures: int) -> None:
        self.output = output
        self.shard_size = shard_size
        self.pictures = pictures
        self.shards = -(-pictures // shard_size)
        self._lock = threading.Lock()
        self._piece: tuple[int, pa.Table] | None = None

    def entries(self, shard: int) -> list[Entry]:
        """The pictures of one shard, in order. Raises IndexError if there is no such shard, and
        ConflictError if the plan is not there or not the one that was written."""
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard} of {self.shards}")
        number, place = divmod(shard, _shards_in_a_piece(self.shard_size))
        with self._lock:
            if self._piece is None or self._piece[0] != number:
                self._piece = None  # two at once would be twice the memory
                self._piece = number, self._read(number)
            piece = self._piece[1]
        return _unpacked(piece.slice(place * self.shard_size, self.shard_size))

    def _read(self, number: int) -> pa.Table:
        place = f"{self.output.uri}/{_place(number)}"
        try:
            data = self.output.read(_place(number))
            piece = pq.ParquetFile(pa.BufferReader(data)).read()
        except MissingObjectError as error:
            raise _changed(place, "is missing") from error
        except (pa.ArrowException, OSError) as error:
            raise _changed(place, f"cannot be read ({error})") from error
        if not piece.schema.equals(COLUMNS):
            raise _changed(place, f"has the columns {', '.join(piece.schema.names)}")
        rows = _shards_in_a_piece(self.shard_size) * self.shard_size
        expected = min(rows, self.pictures - number * rows)
        if piece.num_rows != expected:
            raise _changed(place, f"has {piece.num_rows} rows, expected {expected}")
        return piece


def changes(listing: Listing, plan: Plan) -> list[str]:
    """What is different in the listing from the plan, a line for each kind: "2 pictures added
    (a.jpg, b.jpg)", "1 picture changed (c.jpg)"; [] if nothing is."""
    added, removed, changed = _Difference("added"), _Difference("removed"), _Difference("changed")
    planned = (entry for shard in range(plan.shards) for entry in plan.entries(shard))
    listed = listing.entries()
    before, after = next(planned, None), next(listed, None)
    while before is not None or after is not None:
        if after is None or (before is not None and before.key < after.key):
            assert before is not None
            removed.add(before.key)
            before = next(planned, None)
        elif before is None or after.key < before.key:
            added.add(after.key)
            after = next(listed, None)
        else:
            if before != after:
                changed.add(after.key)
            before, after = next(planned, None), next(listed, None)
    return [str(each) for each in (added, removed, changed) if each.count]


class _Difference:
    """Counts keys, and keeps the first."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.count = 0
        self.first: list[str] = []

    def add(self, key: str) -> None:
        self.count += 1
        if self.count <= NAMED:
            self.first.append(shortened(printable(key)))

    def __str__(self) -> str:
        names = [*self.first, "..."] if self.count > NAMED else self.first
        plural = "" if self.count == 1 else "s"
        return f"{self.count:,} picture{plural} {self.kind} ({', '.join(names)})"


def _shards_in_a_piece(shard_size: int) -> int:
    return max(1, PIECE_ROWS // shard_size)


def _place(number: int) -> str:
    return f"{PLAN}{number:05d}.parquet"


def _changed(place: str, what: str) -> ConflictError:
    return ConflictError(
        f"{place} {what}: the output was changed by something else; choose another output"
    )


def _packed(entries: list[Entry]) -> bytes:
    shown = [printable(entry.key) for entry in entries]
    columns = [
        shown,
        [None if _is_text(entry.key) else encoded(entry.key) for entry in entries],
        [entry.size for entry in entries],
        [entry.tag for entry in entries],
    ]
    table = pa.table(dict(zip(COLUMNS.names, columns, strict=True)), schema=COLUMNS)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _unpacked(piece: pa.Table) -> list[Entry]:
    columns: list[list[Any]] = [column.to_pylist() for column in piece.columns]
    return [
        Entry(key if exact is None else unquote(exact, errors="surrogateescape"), size, tag)
        for key, exact, size, tag in zip(*columns, strict=True)
    ]


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True

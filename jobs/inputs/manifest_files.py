"""The files that manifests and inventories are made of: fetched, opened, and their values read."""

from __future__ import annotations

import csv
import gzip
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from archives.errors import DeniedObjectError, MissingObjectError, UsageError, shortened
from archives.stores.opening import open_root, split_uri
from archives.stores.store import S3_SCHEME, Store
from jobs.inputs.sorted_on_disk import no_room, write_all
from jobs.names import printable

if TYPE_CHECKING:
    from botocore.response import StreamingBody

GZIP_MAGIC = b"\x1f\x8b"
# Far above any row of keys; a file that is no text must not be read whole as its first line.
LONGEST_LINE = 1 << 20
DOWNLOAD_CHUNK = 1 << 20
ROWS_AT_ONCE = 10_000
LARGEST_SIZE = 2**63 - 1

# The number of a line or row, and its values in the order of the columns asked for.
Row: TypeAlias = tuple[int, Sequence[Any]]
# Which of a file's columns to read, by their places; raises UsageError if one is missing.
Choose: TypeAlias = Callable[[Sequence[str]], Sequence[int | None]]


@contextmanager
def local_copy(uri: str, what: str, root: Store | None = None) -> Iterator[str]:
    """The path of the file `uri`, or of a temporary copy of the object, for as long as it lasts.

    what: what the file is, for messages; root: the store of its bucket, if that is open (which
    takes a while). Raises UsageError if it is not there or may not be read.
    """
    place, path = split_uri(uri)
    if not place.startswith(S3_SCHEME):
        try:
            with open(place + path, "rb"):
                pass
        except OSError as error:
            raise UsageError(
                f"the {what} {shortened(uri)} cannot be read: {error.strerror}"
            ) from error
        yield place + path
        return
    with tempfile.NamedTemporaryFile(buffering=0, prefix="whybox-") as file:
        try:
            _download(root or open_root(place), path, file)
        except (MissingObjectError, DeniedObjectError) as error:
            raise UsageError(f"the {what} cannot be read: {error}") from error
        except OSError as error:
            raise no_room(f"the {what}", error) from error
        yield file.name


def _download(root: Store, key: str, file: IO[bytes]) -> None:
    from archives.stores.s3 import S3Store

    def take(body: StreamingBody) -> None:
        file.seek(0)
        file.truncate()
        for chunk in body.iter_chunks(DOWNLOAD_CHUNK):
            write_all(file, chunk)

    assert isinstance(root, S3Store)
    root.fetch(key, take)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turns what goes wrong with a damaged file into a UsageError that names it."""
    try:
        yield
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(f"{name} is damaged or of another format: {error}") from error


def text_lines(path: str, name: str) -> Iterator[str]:
    """A text file's lines with their ends, also of a gzip file; bytes that are not UTF-8 are
    escaped as in file names. Raises UsageError for one longer than LONGEST_LINE."""
    with open(path, "rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    number = 0
    with gzip.open(path) if packed else open(path, "rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise UsageError(
                    f"{name}, line {number}: longer than {LONGEST_LINE} bytes; is it a text file?"
                )
            yield line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")


def csv_rows(path: str, name: str, choose: Choose, columns: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a CSV file that have anything in them, numbered by their (last) line.

    columns: the names, if the file has no header.
    Raises UsageError, with the line, for what is no CSV.
    """
    reader = csv.reader(text_lines(path, name), strict=True)
    try:
        columns = columns or next(reader, ())
        chosen = choose(columns)
        for values in reader:
            if not values:
                continue
            if len(values) != len(columns):
                raise UsageError(
                    f"{name}, line {reader.line_num}: {len(values)} values, expected"
                    f" {len(columns)} as there are columns"
                )
            yield reader.line_num, [None if place is None else values[place] for place in chosen]
    except csv.Error as error:
        raise UsageError(f"{name}, line {reader.line_num}: {error}") from error


def parquet_rows(path: str, choose: Choose) -> Iterator[Row]:
    """The rows of a Parquet file, numbered from 1."""
    with pq.ParquetFile(path, buffer_size=DOWNLOAD_CHUNK) as file:
        names = file.schema_arrow.names
        chosen = choose(names)
        wanted = [names[place] for place in chosen if place is not None]
        yield from batch_rows(file.iter_batches(ROWS_AT_ONCE, columns=wanted), names, chosen)


def batch_rows(
    batches: Iterator[pa.RecordBatch], names: Sequence[str], chosen: Sequence[int | None]
) -> Iterator[Row]:
    """The rows of record batches, numbered from 1, with the chosen ones of the columns `names`."""
    number = 0
    for batch in batches:
        nothing = [None] * batch.num_rows
        values = [
            nothing if place is None else batch.column(names[place]).to_pylist() for place in chosen
        ]
        for row in zip(*values, strict=True):
            number += 1
            yield number, row


def size_of(value: object) -> int:
    """A size in bytes as a manifest gives it; -1 where it gives none. Raises ValueError."""
    if value is None or value == "" or value != value:
        return -1
    try:
        if isinstance(value, str):
            size = int(value) if value.isdecimal() else float(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            size = value
        else:
            raise ValueError
        if not 0 <= size <= LARGEST_SIZE or size != int(size):
            raise ValueError
    except ValueError:
        raise ValueError(f"the size is {_shown(value)}; expected a number of bytes") from None
    return int(size)


def tag_of(value: object) -> str:
    """An object's tag as a manifest gives it, without quotes; "" where it gives none. Raises
    ValueError."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"the tag is {_shown(value)}; expected text")
    return printable(str(value).strip('"'))


def text_of(value: object) -> str:
    """A key as a manifest gives it. Raises ValueError."""
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if not isinstance(value, str):
        raise ValueError(f"the key is {_shown(value)}; expected text")
    return value


def _shown(value: object) -> str:
    return shortened(repr(value))

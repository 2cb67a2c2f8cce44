"""S3 Inventory: the listings of whole buckets that AWS writes daily, in the documented format."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

import pyarrow as pa

from archives.errors import UsageError, shortened
from archives.stores.opening import open_root, split_uri
from archives.stores.store import S3_SCHEME, Entry
from jobs.inputs.manifest_files import (
    Row,
    batch_rows,
    csv_rows,
    local_copy,
    parquet_rows,
    readable,
    size_of,
    tag_of,
    text_of,
)

FORMATS: Final = ("CSV", "ORC", "Parquet")
# As CSV's fileSchema names them; Parquet and ORC have is_latest for IsLatest.
COLUMNS: Final = ("key", "size", "etag", "islatest", "isdeletemarker")


@dataclass(frozen=True)
class DataFile:
    """One of the files that hold an inventory's rows; md5: of its bytes, hex."""

    uri: str
    md5: str


@dataclass(frozen=True)
class Inventory:
    """What a manifest.json says.

    bucket: whose objects are listed.
    format: one of FORMATS.
    columns: of the CSV files, which have no header; () for other formats.
    """

    uri: str
    bucket: str
    format: str
    columns: tuple[str, ...]
    files: tuple[DataFile, ...]

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """The bucket's objects whose keys start with `prefix`, in no order; versions that are not
        the latest and delete markers are left out.

        One file after the other is fetched to a temporary one. Raises UsageError if one is
        missing, damaged, or not the one that the manifest means.
        """
        if not self.files:
            return
        root = open_root(split_uri(self.files[0].uri)[0])  # all lie in one place
        for file in self.files:
            name = f"the inventory's file {shortened(file.uri)}"
            with local_copy(file.uri, "inventory's file", root) as path, readable(name):
                _check(path, file, name)
                yield from self._read(path, name, prefix)

    def _read(self, path: str, name: str, prefix: str) -> Iterator[Entry]:
        unit = "line" if self.format == "CSV" else "row"
        for number, (key, size, tag, latest, marker) in self._rows(path, name):
            if not _is(latest, True) or _is(marker, False):
                continue
            try:
                text = text_of(key)
                if self.format == "CSV":
                    text = unquote_plus(text, errors="strict")
                if text.startswith(prefix):
                    entry = Entry(text, size_of(size), tag_of(tag))
                else:
                    continue
            except ValueError as error:
                raise UsageError(f"{name}, {unit} {number}: {error}") from error
            yield entry

    def _rows(self, path: str, name: str) -> Iterator[Row]:
        def choose(columns: Sequence[str]) -> Sequence[int | None]:
            plain = [column.strip().replace("_", "").lower() for column in columns]
            if "key" not in plain:
                found = shortened(", ".join(columns))
                raise UsageError(f"{name} has no column of keys; its columns are {found}")
            return [plain.index(each) if each in plain else None for each in COLUMNS]

        if self.format == "CSV":
            return csv_rows(path, name, choose, self.columns)
        if self.format == "Parquet":
            return parquet_rows(path, choose)
        try:
            from pyarrow import orc  # not in every build
        except ImportError as error:
            raise UsageError(
                f"{name} is ORC, which this pyarrow cannot read; let the inventory be written as"
                " CSV or Parquet"
            ) from error
        file = orc.ORCFile(path)
        names = file.schema.names
        chosen = choose(names)
        wanted = [names[place] for place in chosen if place is not None]
        stripes = (
            stripe
            for number in range(file.nstripes)
            for stripe in _batches(file.read_stripe(number, columns=wanted))
        )
        return batch_rows(stripes, names, chosen)


def _batches(stripe: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    return stripe.to_batches() if isinstance(stripe, pa.Table) else [stripe]


def is_inventory(manifest: str) -> bool:
    """Whether a manifest's name is an inventory's: its rows are in other files."""
    return manifest.lower().endswith(".json")


def read_inventory(uri: str) -> Inventory:
    """The inventory of a manifest.json: the object, or a copy of it with its data files (under
    the last part of their keys) beside it.

    Raises UsageError if it is not there or not of the documented form.
    """
    name = f"the inventory {shortened(uri)}"
    with local_copy(uri, "inventory") as path, open(path, "rb") as file:
        data = file.read()
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is no JSON: {error}") from error
    kind = _text(found, "fileFormat", name)
    formats = {each.lower(): each for each in FORMATS}
    if kind.lower() not in formats:
        raise UsageError(f"{name} has fileFormat {kind!r}; expected {', '.join(FORMATS)}")
    kind = formats[kind.lower()]
    columns = _text(found, "fileSchema", name).split(",") if kind == "CSV" else []
    bucket = _text(found, "sourceBucket", name).rpartition(":")[2]
    destination = _text(found, "destinationBucket", name).rpartition(":")[2]  # of an ARN
    files = found.get("files")
    if not isinstance(files, list):
        raise UsageError(f"{name} has no list of files; expected AWS's manifest.json")
    return Inventory(
        uri,
        bucket,
        kind,
        tuple(each.strip() for each in columns),
        tuple(_data_file(each, uri, destination, f"{name}, a file of it,") for each in files),
    )


def _data_file(found: Any, manifest: str, bucket: str, name: str) -> DataFile:
    key = _text(found, "key", name)
    md5 = _text(found, "MD5checksum", name)
    if manifest.startswith(S3_SCHEME):
        return DataFile(f"{S3_SCHEME}{bucket}/{key}", md5)
    return DataFile(os.path.join(os.path.dirname(manifest), key.rpartition("/")[2]), md5)


def _text(found: Any, field: str, name: str) -> str:
    value = found.get(field) if isinstance(found, dict) else None
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name} has no {field}; expected AWS's manifest.json")
    return value


def _check(path: str, file: DataFile, name: str) -> None:
    with open(path, "rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False))
    if digest.hexdigest() != file.md5.lower():
        raise UsageError(
            f"{name} has MD5 {digest.hexdigest()}, expected {file.md5}: it is damaged or of another"
            " day; fetch the inventory again"
        )


def _is(value: object, unless_given: bool) -> bool:
    """A truth value of Parquet's or of CSV's."""
    if value is None or value == "":
        return unless_given
    return str(value).lower() == "true"

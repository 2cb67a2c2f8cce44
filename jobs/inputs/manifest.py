"""Manifests: files that name a job's pictures, as CSV, JSON Lines or Parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from archives.errors import UsageError, shortened
from archives.stores.store import S3_SCHEME, Entry
from jobs.inputs.manifest_files import (
    Row,
    csv_rows,
    local_copy,
    parquet_rows,
    readable,
    size_of,
    tag_of,
    text_lines,
    text_of,
)
from jobs.names import printable

# Names of columns, in any case; the first that is there is taken.
KEYS: Final = ("key", "path", "file_name")
SIZES: Final = ("size",)
TAGS: Final = ("tag", "etag", "e_tag")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def read_manifest(uri: str, folder: str) -> Iterator[Entry]:
    """The pictures that the manifest `uri` (a file or an object) names, in its order.

    folder: the input, "s3://bucket/prefix/" or "/home/me/pictures/"; keys are below it, or whole
    URIs or paths that lead there. Entries' keys are relative to it. Where the manifest has no
    size it is -1, where it has no tag it is "": then a picture can change without being noticed.
    Raises UsageError, with the line, for whatever is not as it should be.
    """
    name = f"the manifest {shortened(uri)}"
    unit, rows = _reader(uri, name)
    number = 0
    with local_copy(uri, "manifest") as path, readable(name):
        for number, (key, size, tag) in rows(path, name):
            try:
                entry = Entry(_below(text_of(key), folder), size_of(size), tag_of(tag))
            except ValueError as error:
                raise UsageError(f"{name}, {unit} {number}: {error}") from error
            yield entry
    if not number:
        raise UsageError(f"{name} names no pictures")


def _reader(uri: str, name: str) -> tuple[str, Callable[[str, str], Iterator[Row]]]:
    """What its rows are called, and how they are read."""
    end = uri.lower()
    if end.endswith(".parquet"):
        return "row", lambda path, name: parquet_rows(path, _chooser(name))
    end = end.removesuffix(".gz")
    if end.endswith(".csv"):
        return "line", lambda path, name: csv_rows(path, name, _chooser(name))
    if end.endswith((".jsonl", ".ndjson")):
        return "line", _json_rows
    raise UsageError(
        f"{name} is of no known format; expected a name ending in .csv, .jsonl, .csv.gz, .jsonl.gz,"
        " .parquet, or an S3 Inventory's manifest.json"
    )


def _chooser(name: str) -> Callable[[Sequence[str]], Sequence[int | None]]:
    def choose(columns: Sequence[str]) -> Sequence[int | None]:
        if not columns:
            raise UsageError(f"{name} is empty")
        lower = [column.strip().lower() for column in columns]
        chosen = [_first(lower, names) for names in (KEYS, SIZES, TAGS)]
        if chosen[0] is None:
            found = shortened(", ".join(map(printable, columns)))
            raise UsageError(
                f"{name} has no column of keys; expected one called {' or '.join(KEYS)}, its"
                f" columns are {found}"
            )
        return chosen

    return choose


def _first(columns: Sequence[str], names: Sequence[str]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _json_rows(path: str, name: str) -> Iterator[Row]:
    for number, line in enumerate(text_lines(path, name), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name}, line {number}: no JSON: {error}") from error
        yield number, _json_values(found, f"{name}, line {number}")


def _json_values(found: Any, place: str) -> Sequence[Any]:
    if isinstance(found, str):
        return found, None, None
    if isinstance(found, dict):
        lower = {field.lower(): value for field, value in reversed(found.items())}
        names = [_first(list(lower), each) for each in (KEYS, SIZES, TAGS)]
        values = list(lower.values())
        if names[0] is not None:
            return [None if index is None else values[index] for index in names]
    raise UsageError(
        f"{place}: expected a text or an object with {' or '.join(KEYS)}, got"
        f" {shortened(json.dumps(found))}"
    )


def _below(key: str, folder: str) -> str:
    """The key relative to `folder`. Raises ValueError if it is not below."""
    shown = shortened(repr(key))
    on_s3 = folder.startswith(S3_SCHEME)
    try:
        key.encode(errors="strict" if on_s3 else "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"the key {shown} cannot be written as UTF-8") from None
    if not key or key.endswith("/") or "\0" in key:
        raise ValueError(f"the key is {shown}; expected the name of a picture")
    if not on_s3 and not SCHEME.match(key):  # in a bucket "a//b" is another object than "a/b"
        parts = [part for part in key.split("/") if part not in ("", ".")]
        key = "/" * key.startswith("/") + "/".join(parts)
    relative = key.removeprefix(folder)
    if relative.startswith("/") or SCHEME.match(relative) or ".." in relative.split("/"):
        raise ValueError(
            f"the key {shown} leads out of the input {shortened(folder)}; expected one below it"
        )
    if not relative or relative == ".":
        raise ValueError(f"the key is {shown}; expected the name of a picture")
    return relative

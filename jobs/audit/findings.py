"""What parts of an audit hand to its report: findings, each about a detection or a picture, and
tables. Kept in OUTPUT/audit/, a pair of files for each part."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa

from archives.errors import ConflictError, MissingObjectError, one_line
from archives.stores.store import Store
from jobs.names import SHORTCUTS
from jobs.numbers_in_json import plain
from jobs.tables import parquet_bytes, read_rows

AUDIT = "audit/"
COLUMNS = pa.schema(
    [
        pa.field(name, kind, nullable=name == "index")
        for name, kind in (
            *(("key", pa.string()), ("index", pa.int32()), ("flag", pa.string())),
            *(("severity", pa.float32()), ("says", pa.string()), ("group", pa.string())),
        )
    ]
)
# What a cell of a table may hold; a pair is a mean and its standard error.
Cell = str | int | float | tuple[float, float] | None


@dataclass(frozen=True)
class Finding:
    """Something that a person should look at.

    key: the picture's, printable, as in detections.parquet. index: the detection's place there;
    None where it is about the picture, or about an object that was not detected.
    flag: what kind of thing it is, a few words in lower case, such as "evidence outside the box".
    severity: 0 ... 1; the worst are shown first.
    says: one sentence for a person, with its figures.
    group: what belongs together, such as a cluster's name; "" for none.
    """

    key: str
    index: int | None
    flag: str
    severity: float
    says: str
    group: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.severity <= 1:
            raise ValueError(f"severity: got {self.severity}; expected 0 to 1")


@dataclass(frozen=True)
class Table:
    """A table of the report.

    title: its heading. text: what it shows and how to read it, in a sentence or two.
    columns: their names. rows: as many cells each; None where there is nothing to tell.
    """

    title: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"got a row of {len(row)} cells; expected {len(self.columns)}")


@dataclass(frozen=True)
class Image:
    """A picture that the report shows, unless it is to hold no pixel of any picture.

    path: a JPEG's, below the output. alt: what it is of, in a few words. caption: what it shows and
    how to read it, in a sentence or two.
    """

    path: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Part:
    """What one part of an audit found.

    name: a file's name, such as "shortcuts". title: its heading. text: what was asked, how it was
    answered, and what that cannot see. figures: by name, for thresholds and for plots over time.
    images: those that were written, or are about to be.
    """

    name: str
    title: str
    text: str
    tables: tuple[Table, ...] = ()
    findings: tuple[Finding, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    images: tuple[Image, ...] = ()


def write_part(output: Store, part: Part) -> None:
    """Writes audit/NAME.json and audit/NAME.parquet, the latter first."""
    rows = [asdict(each) for each in part.findings]
    output.write(f"{AUDIT}{part.name}.parquet", parquet_bytes(rows, COLUMNS))
    summary = {
        "name": part.name,
        "title": part.title,
        "text": part.text,
        "tables": [asdict(each) for each in part.tables],
        "figures": {name: each for name, each in part.figures.items() if math.isfinite(each)},
        "images": [asdict(each) for each in part.images],
    }
    text = json.dumps(plain(summary), indent=1, allow_nan=False)
    output.write(f"{AUDIT}{part.name}.json", text.encode() + b"\n")


def read_part(output: Store, name: str, findings: bool = True) -> Part | None:
    """What `write_part` wrote, or None. findings: False for the part without them.

    Raises ConflictError for what this version's `write_part` did not write.
    """
    try:
        summary = output.read(f"{AUDIT}{name}.json")
        rows = output.read(f"{AUDIT}{name}.parquet") if findings else None
    except MissingObjectError:
        return None
    try:
        return _part(name, json.loads(summary), read_rows(rows) if rows is not None else [])
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise ConflictError(
            f"{output.uri}/{AUDIT}{name}.json is no part of an audit as this version writes it"
            f" ({type(error).__name__}: {one_line(error)}); remove it, or do that step again"
        ) from error


def _part(name: str, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Part:
    if summary["name"] != name:  # the report's files are named after it
        raise ValueError(f"name: got {summary['name']!r}; expected {name!r}, as its file is named")
    names = [each.name for each in fields(Finding)]
    return Part(
        name=name,
        title=_text(summary, "title"),
        text=_text(summary, "text"),
        tables=tuple(_table(each) for each in summary["tables"]),
        findings=tuple(Finding(**{name: row[name] for name in names}) for row in rows),
        figures=_figures(summary["figures"]),
        images=tuple(_image(each) for each in summary.get("images", [])),  # older ones have none
    )


def _text(values: Mapping[str, Any], name: str) -> str:
    found = values[name]
    if not isinstance(found, str):
        raise TypeError(f"{name}: got {found!r}; expected a text")
    return found


def _figures(found: Any) -> dict[str, float]:
    if not isinstance(found, dict):
        raise TypeError(f"figures: got {found!r}; expected numbers by name")
    for name, each in found.items():
        number = isinstance(each, int | float) and not isinstance(each, bool)
        if not number or not math.isfinite(each):
            raise ValueError(f"figures: {name!r} is {each!r}; expected a finite number")
    return found


def _image(values: Mapping[str, Any]) -> Image:
    path = _text(values, "path")
    # The report copies what is there, so it must not lie beside the output.
    if "\\" in path or {"", ".", ".."} & set(path.split("/")):
        raise ValueError(f"images: got path {path!r}; expected one below the output")
    return Image(path, _text(values, "alt"), _text(values, "caption"))


def remove_sheets(output: Store) -> None:
    """Removes the examples of shortcuts that were drawn; none is no error."""
    with suppress(MissingObjectError):
        drawn = [each.key for each in output.entries(SHORTCUTS) if each.key.endswith(".jpg")]
        for key in drawn:
            output.delete(key)


def remove_part(output: Store, name: str) -> None:
    """Removes what `write_part` wrote, if it is there."""
    for ending in ("json", "parquet"):
        output.delete(f"{AUDIT}{name}.{ending}")


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """By severity; of equals by key and index."""
    return sorted(findings, key=lambda each: (-each.severity, each.key, each.index or 0))


def _table(values: dict[str, Any]) -> Table:
    rows = tuple(
        tuple(tuple(cell) if isinstance(cell, list) else cell for cell in row)
        for row in values["rows"]
    )
    return Table(values["title"], values["text"], tuple(values["columns"]), rows)

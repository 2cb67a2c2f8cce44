"""Maps and the truth of their pictures, kept in OUTPUT/maps/ a chunk of pictures at a time, so that
boxes can be made again without the network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from archives.errors import ConflictError, MissingObjectError, UsageError, shortened
from archives.stores.opening import open_store
from archives.stores.store import Store
from jobs.boxes.explaining import NamedMap
from jobs.names import array_name, printable
from jobs.saved_run import explanation_of
from jobs.scoring.saved_boxes import TRUTHS, truth_rows
from jobs.tables import DETECTIONS, npz_bytes, parquet_bytes, read_npz, read_rows
from jobs.truth.objects import Objects
from jobs.worker.outcome import Done
from jobs.worker.pictures import Failure

RECORD, MAPS = "maps.json", "maps/"
# Pictures whose maps are committed together.
CHUNK = 64
ROWS = pa.schema([*DETECTIONS, pa.field("truth_category", pa.string(), nullable=False)])
# As jobs.scoring.saved_boxes has it.


@dataclass(frozen=True)
class Explained:
    """A picture that was annotated, as it is kept. split: the one that it is in, or None. done: its
    rows and maps. categories: the truth's name for what each of them explains."""

    key: str
    split: str | None
    objects: Objects
    done: Done
    categories: tuple[str, ...]


@dataclass(frozen=True)
class MappedPicture:
    """A picture that was annotated, with its maps, read back.

    key: in the input, as it is. name: the key as tables have it. split: as Explained.
    """

    key: str
    split: str | None
    objects: Objects
    maps: tuple[NamedMap, ...]

    @property
    def name(self) -> str:
        return printable(self.key)


def read_record(output: Store) -> dict[str, Any] | None:
    """What RECORD says, or None. Raises ConflictError for one that is none."""
    try:
        found: dict[str, Any] = json.loads(output.read(RECORD))
        found["settings"].items(), found["input"], int(found["chunks"]), bool(found["done"])
    except MissingObjectError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConflictError(
            f"{output.uri}/{RECORD} is of no `jobs boxes`, or was cut off"
            f" ({type(error).__name__}); give another --output, or remove it"
        ) from error
    return found


def begin(output: Store, settings: Mapping[str, Any], source: str, pictures: int) -> dict[str, Any]:
    """Writes RECORD if there is none, and returns it.

    settings: what the maps depend on. source: the input's root. Raises ConflictError where the
    output holds maps of other settings.
    """
    chunks = -(-pictures // CHUNK)
    plain = json.loads(json.dumps(settings))
    before = read_record(output)
    if before is not None:
        differing = sorted(
            name
            for name in {*before["settings"], *plain}
            if before["settings"].get(name) != plain.get(name)
        )
        if differing:
            raise ConflictError(
                f"{output.uri}/{RECORD} is of other maps: their {', '.join(differing)} differ; give"
                " another --output, or remove it"
            )
        return before
    record = {"settings": plain, "input": source, "chunks": chunks, "done": not chunks}
    write_json(output, RECORD, record)
    return record


def finish(output: Store, record: Mapping[str, Any]) -> None:
    """Says that all chunks are done."""
    write_json(output, RECORD, {**record, "done": True})


def is_done(output: Store, number: int) -> bool:
    """Whether a chunk was committed."""
    return output.find(_path(number, "json")) is not None


def commit(
    output: Store,
    number: int,
    done: Sequence[Explained],
    failures: Sequence[Failure],
    without_truth: int,
) -> None:
    """Writes a chunk's tables, then what says that it is done."""
    rows = [
        {**row, "truth_category": category}
        for each in done
        for row, category in zip(each.done.rows, each.categories, strict=True)
    ]
    arrays = {name: array for each in done for name, array in each.done.maps.items()}
    truths = [row for each in done for row in truth_rows(printable(each.key), each.objects)]
    tables = {
        "npz": npz_bytes(arrays),
        "parquet": parquet_bytes(rows, ROWS),
        "truth.parquet": parquet_bytes(truths, TRUTHS),
    }
    for ending, data in tables.items():
        output.write(_path(number, ending), data)
    said = {
        "pictures": [[each.key, each.split] for each in done],
        "without_truth": without_truth,
        "failures": [vars(each) for each in failures],
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in tables.items()},
    }
    write_json(output, _path(number, "json"), said)


class SavedMaps:
    """What `jobs boxes` kept of all its pictures, once they are done."""

    def __init__(self, output: Store, record: Mapping[str, Any]) -> None:
        self.output, self.record = output, record

    @classmethod
    def open(cls, place: str) -> SavedMaps:
        """Raises UsageError where there is none, or one that is not done; ConflictError for a
        record that is none."""
        output = open_store(place)
        record = read_record(output)
        if record is None or not record["done"]:
            what = "they are not all made" if record else f"it holds no {RECORD}"
            raise UsageError(
                f"no maps at {shortened(output.uri)}: {what}; run `python -m jobs boxes --archive"
                " ... --output` with it first"
            )
        return cls(output, record)

    def pictures(self) -> Iterator[MappedPicture]:
        """All that did not fail and were annotated, in the listing's order; those of one chunk are
        held at once. Raises ConflictError for a table that is not what was committed."""
        for number in range(self.record["chunks"]):
            said = json.loads(self.output.read(_path(number, "json")))
            tables = {
                name: self._read(_path(number, name), digest)
                for name, digest in said["sha256"].items()
            }
            maps = read_npz(tables["npz"])
            rows = _by_key(read_rows(tables["parquet"]))
            truths = _by_key(read_rows(tables["truth.parquet"]))
            for key, split in said["pictures"]:
                name = printable(key)
                yield MappedPicture(
                    key,
                    split,
                    objects_of(truths.get(name, [])),
                    tuple(
                        NamedMap(
                            row["truth_category"],
                            explanation_of(row, maps[array_name(key, row["index"])]),
                        )
                        for row in rows.get(name, [])
                    ),
                )

    def failures(self) -> list[dict[str, str]]:
        """key, stage, error and message of each picture that could not be explained."""
        return [each for said in self._said() for each in said["failures"]]

    def without_truth(self) -> int:
        """How many pictures nobody annotated."""
        return sum(said["without_truth"] for said in self._said())

    def _said(self) -> Iterator[dict[str, Any]]:
        for number in range(self.record["chunks"]):
            yield json.loads(self.output.read(_path(number, "json")))

    def _read(self, path: str, digest: str) -> bytes:
        data = self.output.read(path)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ConflictError(
                f"{self.output.uri}/{path} is not what was committed: two runs have written here;"
                f" remove {MAPS} and {RECORD}, and run `python -m jobs boxes` again"
            )
        return data


def objects_of(rows: Sequence[Mapping[str, Any]]) -> Objects:
    """The inverse of what the truth's table has of a picture; without masks."""
    boxes = [[row[edge] for edge in ("x1", "y1", "x2", "y2")] for row in rows]
    return Objects(
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        categories=tuple(row["category"] for row in rows),
        difficult=np.array([row["difficult"] for row in rows], dtype=np.bool_),
        crowd=np.array([row["crowd"] for row in rows], dtype=np.bool_),
        masks=(None,) * len(rows),
    )


def write_json(output: Store, path: str, value: Mapping[str, Any]) -> None:
    """JSON without NaN, a line for each entry."""
    output.write(path, json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")


def _by_key(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {str(name): list(own) for name, own in groupby(rows, key=lambda row: row["key"])}


def _path(number: int, ending: str) -> str:
    return f"{MAPS}{number:05d}.{ending}"

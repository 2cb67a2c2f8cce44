"""Detections and true objects kept as two tables, to be scored again and again without a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from archives.errors import MissingObjectError, UsageError, shortened
from archives.stores.store import Store
from jobs.scoring.pictures import DetectedPicture
from jobs.truth.objects import Objects

DETECTIONS_FILE, TRUTHS_FILE = "detections.parquet", "truths.parquet"
EDGES = ("x1", "y1", "x2", "y2")
_BOX: list[pa.Field[Any]] = [
    pa.field("key", pa.string(), nullable=False),
    pa.field("category", pa.string(), nullable=False),
    *(pa.field(name, pa.float64(), nullable=False) for name in EDGES),
]
DETECTIONS = pa.schema(
    [
        *_BOX,
        pa.field("score", pa.float64(), nullable=False),
        pa.field("map", pa.string(), nullable=False),
        pa.field("threshold", pa.float64()),
    ]
)
TRUTHS = pa.schema(
    [
        *_BOX,
        pa.field("difficult", pa.bool_(), nullable=False),
        pa.field("crowd", pa.bool_(), nullable=False),
        pa.field("area", pa.float64()),
    ]
)


@dataclass(frozen=True)
class SavedBoxes:
    """Detections and true objects of many pictures.

    detections: rows key (the picture's, printable), category, x1, y1, x2, y2 (pixels), score, and
    what made the box: map (a name, "" for the detector itself) and threshold (of the map's maximum;
    null where there was none). truths: rows key, category, x1, y1, x2, y2, difficult, crowd, area
    (square pixels; null for the box's). Every picture of a detection counts as annotated: one that
    nobody annotated must not be here.
    """

    detections: pa.Table
    truths: pa.Table

    @classmethod
    def of(
        cls, detections: Iterable[Mapping[str, Any]], truths: Iterable[Mapping[str, Any]]
    ) -> SavedBoxes:
        """Of rows by these names; map, threshold, difficult, crowd and area may be left out. What
        else is in them is not kept."""
        return cls(
            _table(detections, DETECTIONS, {"map": "", "threshold": None}),
            _table(truths, TRUTHS, {"difficult": False, "crowd": False, "area": None}),
        )

    def write(self, output: Store, folder: str = "") -> None:
        """Writes FOLDER/truths.parquet, then FOLDER/detections.parquet; folder: "" or ending with a
        slash."""
        for name, table in ((TRUTHS_FILE, self.truths), (DETECTIONS_FILE, self.detections)):
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            output.write(folder + name, bytes(sink.getvalue().to_pybytes()))

    @classmethod
    def read(cls, output: Store, folder: str = "") -> SavedBoxes:
        """What `write` wrote. Raises UsageError where that is not there, or is something else."""
        return cls(
            _read(output, folder + DETECTIONS_FILE, DETECTIONS),
            _read(output, folder + TRUTHS_FILE, TRUTHS),
        )

    def by_map(self) -> dict[tuple[str, float | None], SavedBoxes]:
        """The boxes of each map and threshold, in this order, beside all true objects. A map
        without one box is not told; without any detection there is ("", None)."""
        names = np.array(self.detections["map"].to_pylist(), dtype=object)
        # No threshold is not a number, which is like nothing: here it is -1.
        told = self.detections["threshold"].to_pylist()
        thresholds = np.array([-1.0 if each is None else each for each in told])
        found = {}
        for name, threshold in sorted(set(zip(names, thresholds.tolist(), strict=True))):
            places = np.flatnonzero((names == name) & (thresholds == threshold))
            own = SavedBoxes(self.detections.take(places), self.truths)
            found[name, None if threshold == -1 else threshold] = own
        return found or {("", None): self}

    def pictures(self) -> Iterator[DetectedPicture]:
        """Each picture's, in the order of the tables, the detections' first."""
        found, true = _Columns(self.detections), _Columns(self.truths)
        both = [*self.detections["key"].chunks, *self.truths["key"].chunks]
        keys: pa.Array[Any] = pa.chunked_array(both, pa.string()).combine_chunks().unique()
        scores = self.detections["score"].to_numpy()
        flags = {name: self.truths[name].to_numpy() for name in ("difficult", "crowd", "area")}
        for key, own, objects in zip(
            keys.to_pylist(), found.places(keys), true.places(keys), strict=True
        ):
            yield DetectedPicture(
                str(key),
                found.boxes[own],
                found.categories(own),
                scores[own],
                Objects(
                    true.boxes[objects],
                    true.categories(objects),
                    flags["difficult"][objects],
                    flags["crowd"][objects],
                    (None,) * len(objects),
                    flags["area"][objects],
                ),
            )


def truth_rows(key: str, objects: Objects) -> Iterator[dict[str, Any]]:
    """The rows of one picture's true objects."""
    for place, category in enumerate(objects.categories):
        area = None if objects.areas is None else float(objects.areas[place])
        yield {
            **_row(key, category, objects.boxes[place]),
            "difficult": bool(objects.difficult[place]),
            "crowd": bool(objects.crowd[place]),
            "area": None if area != area else area,
        }


def detection_rows(picture: DetectedPicture) -> Iterator[dict[str, Any]]:
    """The rows of one picture's detections, without map and threshold."""
    for place, category in enumerate(picture.categories):
        score = float(picture.scores[place])
        yield {**_row(picture.key, category, picture.boxes[place]), "score": score}


def _row(key: str, category: str, box: NDArray[np.float64]) -> dict[str, Any]:
    edges = dict(zip(EDGES, box.tolist(), strict=True))
    return {"key": key, "category": category, **edges}


class _Columns:
    """A table's boxes and categories by row."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.boxes = np.stack([table[name].to_numpy() for name in EDGES], axis=1)
        coded = table["category"].combine_chunks().dictionary_encode()
        self.names = coded.dictionary.to_pylist()
        self.codes = coded.indices.to_numpy()

    def categories(self, places: NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(self.names[code] for code in self.codes[places])

    def places(self, keys: pa.Array[Any]) -> Iterator[NDArray[np.int64]]:
        """The rows of each key."""
        numbers = pc.index_in(self.table["key"], keys).to_numpy()
        order = np.argsort(numbers, kind="stable")
        first = np.searchsorted(numbers[order], np.arange(len(keys) + 1))
        for begin, end in pairwise(first):
            yield order[begin:end]


def _table(
    rows: Iterable[Mapping[str, Any]], schema: pa.Schema, defaults: Mapping[str, Any]
) -> pa.Table:
    return pa.Table.from_pylist([{**defaults, **row} for row in rows], schema=schema)


def _read(output: Store, name: str, schema: pa.Schema) -> pa.Table:
    address = shortened(f"{output.uri}/{name}")
    try:
        found = pq.read_table(pa.BufferReader(output.read(name)))
    except MissingObjectError as error:
        raise UsageError(f"there are no saved boxes: {address} is not there") from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{address} is no table of saved boxes: {error}") from error
    if found.schema.names != schema.names:
        raise UsageError(
            f"{address} has the columns {', '.join(found.schema.names)}; expected"
            f" {', '.join(schema.names)}"
        )
    try:
        table = found.cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"{address} has other types than saved boxes: {error}") from error
    for column in schema:
        must = pa.types.is_floating(column.type) and not column.nullable
        if must and not np.isfinite(table[column.name].to_numpy()).all():
            raise UsageError(f"{address}: {column.name} holds what is no finite number")
    return table

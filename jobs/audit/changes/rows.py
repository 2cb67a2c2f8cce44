"""changes.parquet: a row for each detection of two runs, and for each layer of a matched one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from archives.stores.store import Store
from jobs.audit.changes.differences import MATCHED, TURNED, Change
from jobs.saved_run import Row

TABLE = "changes.parquet"
ROWS_AT_ONCE = 8_192
_WHOLE, _REAL, _TEXT = pa.int32(), pa.float32(), pa.string()
COLUMNS = pa.schema(
    [
        pa.field(name, kind, nullable=name not in ("key", "kind", "change"))
        for name, kind in (
            *(("key", _TEXT), ("kind", _TEXT), ("change", _REAL), ("layer", _TEXT)),
            *(("index_before", _WHOLE), ("index_after", _WHOLE)),
            *(("category_before", _TEXT), ("category_after", _TEXT)),
            *(("score_before", _REAL), ("score_after", _REAL), ("score_difference", _REAL)),
            *(("iou", _REAL), ("growth", _REAL), ("correlation", _REAL)),
            *(("energy_difference", _REAL), ("peak_shift", _REAL)),
        )
    ]
)


class Writer:
    """Takes rows, and holds few of them."""

    def __init__(self, parquet: pq.ParquetWriter) -> None:
        self._parquet = parquet
        self._waiting: list[dict[str, Any]] = []

    def add(self, key: str, found: Sequence[Change]) -> None:
        """One picture's changes."""
        for each in found:
            self._waiting += rows(key, each)
        if len(self._waiting) >= ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        self._parquet.write_table(pa.Table.from_pylist(self._waiting, schema=COLUMNS))
        self._waiting = []


@contextmanager
def written(output: Store) -> Iterator[Writer]:
    """What is added is TABLE in the output, once all is: through a file of this machine."""
    with tempfile.TemporaryDirectory(prefix="whybox-") as folder:
        path = Path(folder, TABLE)
        with pq.ParquetWriter(path, COLUMNS, compression="zstd") as parquet:
            writer = Writer(parquet)
            yield writer
            writer.flush()
        output.write_file(TABLE, path)


def rows(key: str, change: Change) -> list[dict[str, Any]]:
    """Those of one detection: of each layer, else one without."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS.names)
    row |= {"key": key, "kind": change.kind, "change": change.size}
    row |= _side("before", change.before) | _side("after", change.after)
    if change.kind in (MATCHED, TURNED):
        row |= {"iou": change.iou, "score_difference": change.score, "growth": change.growth}
    return [
        {
            **row,
            "layer": each.layer,
            "correlation": each.map.correlation,
            "energy_difference": each.energy,
            "peak_shift": each.map.peak_shift,
        }
        for each in change.layers
    ] or [row]


def _side(name: str, row: Row | None) -> dict[str, Any]:
    if row is None:
        return {}
    return {f"{each}_{name}": row[each] for each in ("index", "category", "score")}

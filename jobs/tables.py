"""The job's tables: their columns, and their bytes, equal for equal content."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

# A column's unit or meaning where its name does not say it: README, "Run a job".
DETECTIONS = pa.schema(
    [
        pa.field(name, kind, nullable=name == "suppressed_by")
        for name, kind in (
            ("key", pa.string()),
            ("index", pa.int32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("x1", pa.float32()),
            ("y1", pa.float32()),
            ("x2", pa.float32()),
            ("y2", pa.float32()),
            ("label", pa.int32()),
            ("category", pa.string()),
            ("score", pa.float32()),
            ("method", pa.string()),
            ("target", pa.string()),
            ("layer", pa.string()),
            ("level", pa.string()),
            ("outcome", pa.string()),
            ("suppressed_by", pa.int32()),
            ("together", pa.list_(pa.int32())),
            ("boxes", pa.list_(pa.list_(pa.float32()))),
            ("map_height", pa.int32()),
            ("map_width", pa.int32()),
            ("map_max", pa.float32()),
            ("geometry", pa.string()),
            ("energy_in_box", pa.float32()),
            ("peak_x", pa.float32()),
            ("peak_y", pa.float32()),
        )
    ]
)
FAILURES = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("key", "stage", "error", "message")]
)
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def parquet_bytes(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """A parquet file of `rows`, each with exactly the schema's columns; also of no rows at all."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def read_rows(data: bytes) -> list[dict[str, Any]]:
    """The rows of a parquet file's bytes."""
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(data)).to_pylist()
    return rows


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays as numpy.savez writes them, but with fixed times: equal arrays, equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", ZIP_TIME)
            info.external_attr = 0o600 << 16
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def read_npz(data: bytes) -> Mapping[str, NDArray[Any]]:
    """What `npz_bytes` wrote, each array read when it is asked for."""
    arrays: Mapping[str, NDArray[Any]] = np.load(io.BytesIO(data), allow_pickle=False)
    return arrays

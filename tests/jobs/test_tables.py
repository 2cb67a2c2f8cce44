from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq

from jobs.tables import DETECTIONS, FAILURES, npz_bytes, parquet_bytes, read_npz, read_rows

ROW = {
    "key": "a/é.jpg", "index": 3, "width": 640, "height": 480, "x1": 1.5, "y1": 2.5, "x2": 30.25,
    "y2": 40.0, "label": 2, "category": "dog", "score": 0.75, "method": "odam", "target": "class",
    "layer": "emitting", "level": "0", "outcome": "suppressed by box 1 (...)", "suppressed_by": 1,
    "together": [], "boxes": [], "map_height": 15, "map_width": 20, "map_max": 2.0**-20,
    "geometry": "{}", "energy_in_box": 0.5, "peak_x": 10.5, "peak_y": 20.5,
}  # fmt: skip


def test_rows_come_back_with_their_values() -> None:
    several = {"together": [3, 5], "boxes": [[1.5, 2.5, 9.0, 40.0], [8.0, 5.0, 30.25, 9.5]]}
    rows = [ROW, {**ROW, "outcome": "reported", "suppressed_by": None, **several}]
    assert read_rows(parquet_bytes(rows, DETECTIONS)) == rows


def test_no_rows_still_have_columns() -> None:
    table = pq.read_table(io.BytesIO(parquet_bytes([], FAILURES)))
    assert (table.num_rows, table.column_names) == (0, ["key", "stage", "error", "message"])


def test_the_columns_are_those_that_scripts_rely_on() -> None:
    assert DETECTIONS.names == list(ROW)
    assert str(DETECTIONS.field("map_max").type) == "float"


def test_equal_content_gives_equal_bytes() -> None:
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    assert npz_bytes({"a": array}) == npz_bytes({"a": array.copy()})
    assert parquet_bytes([ROW], DETECTIONS) == parquet_bytes([dict(ROW)], DETECTIONS)


def test_numpy_reads_the_heatmaps_without_pickle() -> None:
    arrays = {"a%2Fb.jpg#0": np.eye(2, dtype=np.float16), "x": np.zeros((0, 3), np.float16)}
    found = read_npz(npz_bytes(arrays))
    assert list(found) == list(arrays)
    np.testing.assert_array_equal(found["a%2Fb.jpg#0"], arrays["a%2Fb.jpg#0"])
    assert found["x"].shape == (0, 3)

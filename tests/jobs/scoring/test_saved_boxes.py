"""Boxes that are kept to be scored again."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from archives.errors import UsageError
from archives.stores.opening import open_store
from jobs.scoring.saved_boxes import (
    DETECTIONS,
    DETECTIONS_FILE,
    TRUTHS,
    TRUTHS_FILE,
    SavedBoxes,
    detection_rows,
    truth_rows,
)
from jobs.tables import parquet_bytes
from jobs.truth.objects import Objects
from tests.conftest import put


def row(key: str, category: str, x1: float, **more: object) -> dict[str, object]:
    return {"key": key, "category": category, "x1": x1, "y1": 0, "x2": x1 + 10, "y2": 5.5, **more}


FOUND = [
    row("b", "cat", 1, score=0.5, map="odam", threshold=0.3, else_="not kept"),
    row("a", "dog", 2, score=0.25, map="odam", threshold=0.3),
    row("b", "dog", 3, score=0.75, map="odam", threshold=0.5),
    row("a", "cat", 4, score=0.125),
]
TRUE = [
    row("c", "cat", 5, difficult=True),
    row("b", "cat", 6, crowd=True, area=7.5),
    row("b", "<cow>'", 7),
]


def test_they_come_back_picture_by_picture(place: str) -> None:
    SavedBoxes.of(FOUND, TRUE).write(open_store(place), "boxes/")
    saved = SavedBoxes.read(open_store(place), "boxes/")
    assert saved.detections.schema.equals(DETECTIONS)
    assert saved.truths.schema.equals(TRUTHS)
    b, a, c = saved.pictures()
    assert (b.key, a.key, c.key) == ("b", "a", "c")
    assert b.boxes.tolist() == [[1, 0, 11, 5.5], [3, 0, 13, 5.5]]
    assert (b.categories, b.scores.tolist()) == (("cat", "dog"), [0.5, 0.75])
    assert b.objects.categories == ("cat", "<cow>'")
    assert b.objects.boxes.tolist() == [[6, 0, 16, 5.5], [7, 0, 17, 5.5]]
    assert b.objects.crowd.tolist() == [True, False]
    assert b.objects.areas is not None
    assert b.objects.areas[0] == 7.5
    assert math.isnan(b.objects.areas[1])
    assert (a.categories, a.scores.tolist(), len(a.objects)) == (("dog", "cat"), [0.25, 0.125], 0)
    assert (len(c.boxes), c.objects.difficult.tolist()) == (0, [True])
    # The rows of what was read are those that were written.
    again = SavedBoxes.of(
        [{**each, "map": ""} for picture in (b, a, c) for each in detection_rows(picture)],
        [each for picture in (b, a, c) for each in truth_rows(picture.key, picture.objects)],
    )
    assert again.truths.sort_by("x1").equals(saved.truths.sort_by("x1"))
    names = ["key", "category", "x1", "score"]
    expected = saved.detections.sort_by("x1").select(names)
    assert again.detections.sort_by("x1").select(names).equals(expected)


def test_rows_of_objects_without_areas() -> None:
    no = np.zeros(1, dtype=bool)
    objects = Objects(np.array([[1.0, 2, 3, 4]]), ("cat",), no, no, (None,))
    box = {"x1": 1, "y1": 2, "x2": 3, "y2": 4}
    told = {"difficult": False, "crowd": False, "area": None}
    assert list(truth_rows("a", objects)) == [{"key": "a", "category": "cat", **box, **told}]


def test_each_map_and_threshold_by_itself() -> None:
    found = SavedBoxes.of(FOUND, TRUE).by_map()
    counts = {name: own.detections.num_rows for name, own in found.items()}
    assert counts == {("", None): 1, ("odam", 0.3): 2, ("odam", 0.5): 1}
    assert list(counts) == [("", None), ("odam", 0.3), ("odam", 0.5)]
    assert all(own.truths.num_rows == 3 for own in found.values())
    nothing = SavedBoxes.of([], TRUE).by_map()
    assert list(nothing) == [("", None)]
    assert [each.key for each in nothing["", None].pictures()] == ["c", "b"]
    assert list(SavedBoxes.of([], []).pictures()) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no", "detections.parquet is no table of saved boxes"),
        (parquet_bytes([], TRUTHS), "has the columns key, category, .* expected key, .*threshold"),
        (
            parquet_bytes(
                [dict.fromkeys(DETECTIONS.names)],
                pa.schema([(name, pa.string()) for name in DETECTIONS.names]),
            ),
            "has other types than saved boxes: .*null values",
        ),
        (
            parquet_bytes(
                [dict.fromkeys(DETECTIONS.names, "x")],
                pa.schema([(name, pa.string()) for name in DETECTIONS.names]),
            ),
            "has other types than saved boxes",
        ),
    ],
)
def test_other_files_are_refused(tmp_path: object, data: bytes, said: str) -> None:
    put(str(tmp_path), {TRUTHS_FILE: parquet_bytes([], TRUTHS), DETECTIONS_FILE: data})
    with pytest.raises(UsageError, match=said):
        SavedBoxes.read(open_store(str(tmp_path)))


def test_no_number_is_no_box(tmp_path: object) -> None:
    SavedBoxes.of([row("a", "cat", math.nan, score=1.0)], []).write(open_store(str(tmp_path)))
    with pytest.raises(UsageError, match=r"detections\.parquet: x1 holds what is no finite"):
        SavedBoxes.read(open_store(str(tmp_path)))
    with pytest.raises(UsageError, match=r"there are no saved boxes: .*empty/detections\.parquet"):
        SavedBoxes.read(open_store(str(tmp_path)), "empty/")

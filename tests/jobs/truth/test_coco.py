"""COCO's instances."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archives.errors import UsageError
from jobs.truth.coco import CocoTruth
from jobs.truth.reading import read_truth
from tests.conftest import put

PICTURES: list[dict[str, Any]] = [
    {"id": 7, "file_name": "val/a.jpg", "width": 6, "height": 4},
    {"id": 3, "file_name": "train/b.jpg", "width": 6, "height": 4},
    {"id": 4, "file_name": "val/b.jpg", "width": 6, "height": 4},
    {"id": 5, "file_name": "none.png"},
]
THINGS: list[dict[str, Any]] = [
    {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 1, 3, 2], "iscrowd": 0, "area": 5.5},
    {"id": 2, "image_id": 3, "category_id": 1, "bbox": [0, 0, 0, 0]},
    {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 6, 4], "iscrowd": 1},
]
THINGS[0]["segmentation"] = [[1, 1, 4, 1, 4, 3, 1, 3]]
THINGS[2]["segmentation"] = {"size": [4, 6], "counts": [23, 1]}
NAMES = [{"id": 90, "name": "dog"}, {"id": 1, "name": "cat"}]


def coco(**changes: Any) -> bytes:
    value = {"info": {}, "annotations": THINGS, "images": PICTURES, "categories": NAMES, "more": []}
    return json.dumps(value | changes).encode()


def truth(folder: Path, **changes: Any) -> CocoTruth:
    put(str(folder), {"annotations/instances_val.json": coco(**changes)})
    found = read_truth(str(folder))
    assert isinstance(found, CocoTruth)
    return found


def test_objects_by_hand(place: str) -> None:
    put(place, {"annotations/instances_val.json": coco(), "annotations/captions.json": b"{}"})
    for where in ("", "/annotations/instances_val.json"):
        read = read_truth(place + where)
        assert read.categories == ("cat", "dog")
        found = read.objects("a.jpg")
        assert found is not None
        assert found.boxes.tolist() == [[1, 1, 4, 3], [0, 0, 6, 4]]
        assert found.categories == ("dog", "cat")
        assert found.crowd.tolist() == [False, True]
        assert found.difficult.tolist() == [False, False]
        assert found.areas is not None
        assert found.areas[0] == 5.5
        assert math.isnan(found.areas[1])
        first, second = found.masks
        assert first is not None
        assert second is not None
        expected = np.zeros((4, 6), dtype=bool)
        expected[1:3, 1:4] = True
        assert np.array_equal(first, expected)
        assert np.argwhere(second).tolist() == [[3, 5]]
    unread = read_truth(place, masks=False).objects("val/a.jpg")
    assert unread is not None
    assert unread.masks == (None, None)


@pytest.mark.parametrize(
    ("key", "boxes"),
    [
        ("val/a.jpg", 2),
        ("data/val/a.jpg", 2),
        ("a.png", 2),  # by its stem
        ("val/a.png", 2),
        ("elsewhere/a.png", None),  # another folder's is another picture
        ("train/b.jpg", 1),
        ("val/b.jpg", 0),
        ("none.png", 0),
        ("../none.jpg", 0),
        ("c.jpg", None),
    ],
)
def test_pictures_by_their_names(tmp_path: Path, key: str, boxes: int | None) -> None:
    found = truth(tmp_path).objects(key)
    assert (None if found is None else len(found)) == boxes


def test_two_of_one_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"b.jpg: 2 could be meant \(train/b.jpg, val/b.jpg\)"):
        truth(tmp_path).objects("b.jpg")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": []}, "expected COCO's images, annotations and categories"),
        ({"images": [{"id": 1}]}, "a picture: expected a file_name"),
        ({"images": [*PICTURES, PICTURES[0]]}, "each picture's id to be its own"),
        ({"images": PICTURES[1:]}, "expected an image_id of images, got 7"),
        ({"images": "x"}, "images: expected objects, got 'x'"),
        ({"categories": NAMES[:1]}, "expected an category_id of categories, got 1"),
        ({"categories": [*NAMES, NAMES[0]]}, "an id of its own"),
        ({"categories": [{"id": 1, "name": "c\ud800"}]}, r"without lone .*, got 'c\\ud800'"),
        ({"annotations": [THINGS[1] | {"bbox": [1, 2, 3]}]}, "annotation 2: expected a bbox of"),
        ({"annotations": [THINGS[1] | {"bbox": [1, 2, 3, math.nan]}]}, "four numbers"),
        ({"annotations": [THINGS[1] | {"bbox": [1, 2, -3, 1]}]}, "no negative width"),
        ({"annotations": [THINGS[1] | {"iscrowd": 2}]}, "annotation 2: expected an iscrowd of 0"),
        ({"annotations": [THINGS[1] | {"area": "x"}]}, "annotation 2: expected a number as area"),
        ({"annotations": [THINGS[1] | {"image_id": 1.5}]}, "a whole number as image_id, got 1.5"),
        ({"annotations": [THINGS[1] | {"category_id": 2**60}]}, "whole number as category_id"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        truth(tmp_path, **changes)
    assert "instances_val.json" in str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([[1, 1, 2]], "annotation 1, segmentation|three points"),
        ({"size": [4, 6], "counts": [5]}, "of 24 pixels in all"),
        ("x", "three points"),
    ],
)
def test_masks_that_are_none(tmp_path: Path, segmentation: Any, said: str) -> None:
    things = [THINGS[0] | {"segmentation": segmentation}]
    with pytest.raises(UsageError, match=said):
        truth(tmp_path, annotations=things).objects("a.jpg")


def test_what_is_no_json(tmp_path: Path) -> None:
    put(str(tmp_path), {"a.json": b'{"images": [', "b.json": b"\xff"})
    for name in ("a", "b"):
        with pytest.raises(UsageError, match=f"{name}.json: (no JSON of COCO|expected text in)"):
            read_truth(str(tmp_path / f"{name}.json"))

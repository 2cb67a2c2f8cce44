"""What is trained on: scenes, and BCCD's pictures in PASCAL VOC's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.demo import data
from jobs.demo.data import (
    BATCHES,
    SETS,
    CellBatches,
    Sample,
    categories,
    flipped,
    held_out,
    read_bccd,
    transposed,
)
from jobs.demo.scenes import HELD_OUT_SEEDS, make_scene

ANNOTATION = """<annotation>
<object><name>WBC</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>8</ymax></bndbox>
</object>
<object><name>RBC</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>3</xmax><ymax>9</ymax></bndbox>
</object>
</annotation>"""
SAMPLE = Sample(
    np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3),
    np.array([[1, 2, 4, 3]], dtype=np.float32),
    np.array([1], dtype=np.int64),
)


@pytest.fixture
def bccd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bccd"
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    for name in "abcd":
        Image.new("RGB", (20, 12), (90, 0, 0)).save(folder / f"JPEGImages/{name}.jpg")
        (folder / f"Annotations/{name}.xml").write_text(ANNOTATION)
    (folder / "ImageSets/Main/trainval.txt").write_text("a\nb\nc\n")
    (folder / "ImageSets/Main/test.txt").write_text("d\n")
    monkeypatch.setenv("WHYBOX_DATA", str(tmp_path))
    data.bccd_names.cache_clear()
    return folder


def test_boxes_of_bccd_without_an_area_are_left_out(bccd: Path) -> None:
    sample = read_bccd("a")
    assert sample.picture.shape == (12, 20, 3)
    assert sample.boxes.tolist() == [[1, 2, 5, 8]]
    assert sample.labels.tolist() == [2]
    assert [each.labels.tolist() for each in held_out("bccd", 5)] == [[2]]


def test_where_there_is_no_bccd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHYBOX_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"WHYBOX_DATA: got .* expected a folder with BCCD"):
        read_bccd("a")


def test_flips_and_turns_by_hand() -> None:
    assert flipped(SAMPLE, True, False).boxes.tolist() == [[4, 2, 7, 3]]
    assert flipped(SAMPLE, False, True).boxes.tolist() == [[1, 3, 4, 4]]
    assert transposed(SAMPLE).boxes.tolist() == [[2, 1, 3, 4]]
    # What lies in the box stays in it.
    inside = set(SAMPLE.picture[2:3, 1:4].flatten().tolist())
    for each in (flipped(SAMPLE, True, True), transposed(SAMPLE)):
        x1, y1, x2, y2 = (int(edge) for edge in each.boxes[0])
        assert set(each.picture[y1:y2, x1:x2].flatten().tolist()) == inside


@pytest.mark.parametrize("name", SETS)
def test_batches_are_of_one_size_and_repeat_themselves(name: str, bccd: Path) -> None:
    batches = BATCHES[name](steps=3, batch=3, seed=10**9)
    for pictures, targets in (batches[step] for step in range(3)):
        assert len({picture.shape for picture in pictures}) == 1
        assert all(0 <= float(picture.min()) <= float(picture.max()) <= 1 for picture in pictures)
        assert all(len(target["boxes"]) == len(target["labels"]) for target in targets)
        for target in targets:
            assert int(target["labels"].max()) <= len(categories(name))
    with pytest.raises(IndexError):
        batches[3]
    again = BATCHES[name](steps=3, batch=3, seed=10**9)[2]
    assert all(one.equal(other) for one, other in zip(pictures, again[0], strict=True))


def test_training_never_draws_what_is_held_out(bccd: Path) -> None:
    seen = CellBatches(steps=1, batch=3, seed=0).samples(0, np.random.default_rng(0))
    assert len(seen) == 3  # all of trainval, each once
    assert data.bccd_names("trainval") == ("a", "b", "c")
    (scene,) = held_out("scenes", 1, first=2)
    assert np.array_equal(scene.picture, make_scene(HELD_OUT_SEEDS[2]).picture)

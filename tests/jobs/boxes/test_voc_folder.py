"""VOC folders: their pictures and their lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from archives.errors import UsageError
from jobs.boxes.voc_folder import halves, pictures_of, read_split, stem


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("JPEGImages", "Annotations", "ImageSets/Main", "SegmentationObject"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "JPEGImages/a.jpg").write_bytes(b"")
    (tmp_path / "Annotations/a.xml").write_bytes(b"")
    return tmp_path


def test_only_what_has_pictures_and_annotations_is_one(folder: Path) -> None:
    assert pictures_of(str(folder)) == f"{folder}/JPEGImages/"
    assert pictures_of(f"{folder}/JPEGImages") is None
    assert pictures_of(f"{folder}/nowhere") is None
    (folder / "Annotations/a.xml").unlink()
    assert pictures_of(str(folder)) is None


def test_lists_of_pictures_and_of_a_category(folder: Path) -> None:
    (folder / "ImageSets/Main/test.txt").write_text("b\n\n2008_000001\n")
    (folder / "ImageSets/Main/dog_test.txt").write_text("b  1\nc -1\nd  0\n")
    assert read_split(str(folder), "test") == {"b", "2008_000001"}
    assert read_split(str(folder), "dog_test") == {"b", "d"}
    assert stem("JPEGImages/2008_000001.jpg") == "2008_000001"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("../../secret", "", "expected a list's name"),
        ("a/b", "", "expected a list's name"),
        ("none", "", "there is no list ImageSets/Main/none.txt"),
        ("bad", "a\nb 7\n", "line 2: got 'b 7'"),
        ("odd", "\xff", "is no text"),
    ],
)
def test_what_is_no_list(folder: Path, name: str, text: str, message: str) -> None:
    if text:
        (folder / f"ImageSets/Main/{name}.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message):
        read_split(str(folder), name)


def test_halves_differ_by_seed_alone() -> None:
    first = halves(101, 4)
    assert first.sum() == 50
    assert (first == halves(101, 4)).all()
    assert (first != halves(101, 5)).any()

"""Which file is a picture's, and what its text holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from archives.errors import UsageError
from archives.stores.opening import open_store
from jobs.names import printable
from jobs.truth.annotation_files import AnnotationFolder, decoded, number, tails
from tests.conftest import put


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a/b/x.jpg", ["a/b/x", "b/x", "x"]),
        ("x.tar.jpg", ["x.tar"]),
        ("x", ["x"]),
        (".jpg", [".jpg"]),
        ("../../etc/x.jpg", ["etc/x", "x"]),
        ("a/../x.jpg", ["x"]),
        ("/etc//./x.jpg", ["etc/x", "x"]),
        ("..", []),
        ("a\0.jpg", []),
        ("<script>'.jpg", ["<script>'"]),
        # As tables have a byte that is no UTF-8, and as the store does.
        ("b/\\xff.jpg", ["b/\\xff", "\\xff", "b/\udcff", "\udcff"]),
    ],
)
def test_tails(key: str, expected: list[str]) -> None:
    assert list(tails(key)) == expected


def test_the_longest_end_of_a_key_that_is_there(place: str) -> None:
    put(place, {"x.xml": b"1", "b/x.xml": b"2", "y.txt": b"3"})
    folder = AnnotationFolder(open_store(place), ".xml")
    found = {key: folder.read(key) for key in ("a/b/x.jpg", "c/x.jpg", "y.jpg", "../x.jpg")}
    assert found["a/b/x.jpg"] == (f"{place}/b/x.xml", b"2")
    assert found["c/x.jpg"] == found["../x.jpg"] == (f"{place}/x.xml", b"1")
    assert found["y.jpg"] is None


def test_a_name_that_is_no_text_and_a_file_that_is_too_large(tmp_path: Path) -> None:
    put(str(tmp_path), {"\udcff.xml": b"1", "x.xml": b"12"})
    folder = AnnotationFolder(open_store(str(tmp_path)), ".xml", largest=1)
    found = folder.read(printable("\udcff.jpg"))
    assert found is not None
    assert found[1] == b"1"
    with pytest.raises(UsageError, match=r"x.xml: 2 bytes; expected at most 1 of one"):
        folder.read("x.jpg")


def test_text_and_numbers() -> None:
    assert decoded("\ufeffé".encode(), "a") == "é"
    with pytest.raises(UsageError, match="a: expected text in UTF-8; byte 1 is none"):
        decoded(b"a\xff", "a")
    assert number(" -1.5 ", "here") == -1.5
    for text in ("", "x", "nan", "inf"):
        with pytest.raises(UsageError, match=f"here: expected a number, got '{text}'"):
            number(text, "here")

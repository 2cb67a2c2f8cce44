"""Boxes in text files."""

from __future__ import annotations

from pathlib import Path

import pytest

from archives.errors import UsageError
from archives.stores.opening import open_store
from jobs.scoring.text_boxes import holds_text_boxes, read_text_boxes
from tests.conftest import put


def test_lines_by_hand(tmp_path: Path) -> None:
    files = {
        "detections/a.txt": b"hot dog .5 1 2 3 4\n\n",
        "groundtruths/a.txt": b"cat 1 2 3 4.5\r\ndog 0 0 0 0",
        "groundtruths/b.txt": b"cat 1 1 1 1",
        "groundtruths/c.txt": b"",
        "groundtruths/README": b"no",
    }
    put(str(tmp_path), files)
    assert holds_text_boxes(open_store(str(tmp_path)))
    a, b = read_text_boxes(str(tmp_path)).pictures()
    assert (a.key, a.categories, a.scores.tolist()) == ("a", ("hot dog",), [0.5])
    assert a.boxes.tolist() == [[1, 2, 4, 6]]
    assert a.objects.categories == ("cat", "dog")
    assert a.objects.boxes.tolist() == [[1, 2, 4, 6.5], [0, 0, 0, 0]]
    assert (b.key, len(b.boxes), len(b.objects)) == ("b", 0, 1)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"detections/a.txt": b"cat 1 2 3 4"}, r"a.txt, line 1: expected a class and 5 numbers"),
        ({"detections/a.txt": b"cat x 1 2 3 4"}, "line 1: expected a number, got 'x'"),
        ({"groundtruths/a.txt": b"\ncat 1 2 -3 4"}, "line 2: expected no negative"),
        (
            {"detections/b.txt": b"cat 1 1 2 3 4"},
            r"b.txt is of a picture without groundtruths/b.txt",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    put(str(tmp_path), {"groundtruths/a.txt": b"", **files})
    with pytest.raises(UsageError, match=said):
        read_text_boxes(str(tmp_path))
    assert not holds_text_boxes(open_store(str(tmp_path / "elsewhere")))

"""YOLO's labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from archives.errors import UsageError
from archives.stores.opening import open_store
from jobs.truth.reading import read_truth
from tests.conftest import put
from tests.jobs.conftest import picture_bytes

PICTURE = picture_bytes(20, 10)


def dataset(place: str, text: bytes, **more: bytes) -> None:
    files = {
        "images/val/x.png": PICTURE,
        "labels/val/x.txt": text,
        "classes.txt": b"cat\nhot dog\n",
    }
    put(place, files | {name.replace("__", "/"): data for name, data in more.items()})


def test_boxes_and_outlines_by_hand(place: str) -> None:
    outline = b"0 0.1 0.2 0.4 0.2 0.4 0.6 0.1 0.6"
    dataset(place, b"\xef\xbb\xbf1 0.5 0.5 0.2 0.4\n\n" + outline + b"\r\n")
    put(place, {"labels/val/empty.txt": b""})
    for where, key in (("", "images/val/x.png"), ("/labels/val", "x.png")):
        truth = read_truth(place + where)
        assert truth.categories == ("cat", "hot dog")
        found = truth.objects(key)
        assert found is not None
        assert np.allclose(found.boxes, [[8, 3, 12, 7], [2, 2, 8, 6]])
        assert found.categories == ("hot dog", "cat")
        assert not found.difficult.any()
        assert not found.crowd.any()
        none, mask = found.masks
        assert none is None
        assert mask is not None
        expected = np.zeros((10, 20), dtype=bool)
        expected[2:6, 2:8] = True
        assert np.array_equal(mask, expected)
        empty = truth.objects(key.replace("x.png", "empty.png"))
        assert empty is not None
        assert len(empty) == 0
        assert truth.objects("y.png") is None
    unread = read_truth(place, masks=False).objects("val/x.png")
    assert unread is not None
    assert unread.masks == (None, None)


def test_the_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    put(str(tmp_path), {"a/x.txt": b"0 0.5 0.5 1 1", "b/x.png": PICTURE})
    near = read_truth(str(tmp_path / "a"), categories=["cat"])
    with pytest.raises(UsageError, match=r"x.txt is in shares .* no x.png in .*/a; expected the"):
        near.objects("x.png")
    truth = read_truth(
        str(tmp_path / "a"), categories=["cat"], pictures=open_store(f"{tmp_path}/b")
    )
    found = truth.objects("x.png")
    assert found is not None
    assert found.boxes.tolist() == [[0, 0, 20, 10]]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"names: [a, b]", ("a", "b")),
        (b"names:\n  1: b\n  0: a", ("a", "b")),
        (b"names: {0: a, 2: b}", None),
        (b"names: [1, 2]", None),
        (b'names: ["\\ud800"]', None),
        (b"names: !!python/object/apply:os.getcwd []", None),
        (b"nc: 2", None),
        (b"[", None),
    ],
)
def test_names_in_yaml(tmp_path: Path, data: bytes, names: tuple[str, ...] | None) -> None:
    put(str(tmp_path), {"data.yaml": data, "labels/x.txt": b""})
    if names is None:
        with pytest.raises(UsageError, match=r"data.yaml: (expected names|no plain)|have no names"):
            read_truth(str(tmp_path))
        assert read_truth(str(tmp_path), categories=["c"]).categories == ("c",)
    else:
        assert read_truth(str(tmp_path)).categories == names


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"0 0.5 0.5 1", "line 2: expected class x y w h, or .* got 4 values"),
        (b"0 0.5 0.5 1 1 0.9", "got 6 values"),
        (b"2 0.5 0.5 1 1", "line 2: expected a class from 0 to 1, got '2'"),
        (b"cat 0.5 0.5 1 1", "expected a class from 0 to 1, got 'cat'"),
        (b"-1 0.5 0.5 1 1", "got '-1'"),
        (b"0 0.5 0.5 x 1", "line 2: expected a number, got 'x'"),
        (b"0 8 3 12 7", "line 2: expected shares of the picture's sides"),
        (b"0 0.5 0.5 nan 1", "expected a number, got 'nan'"),
        (b"0 0.5 0.5 -0.001 1", "no negative"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    dataset(str(tmp_path), b"0 0.5 0.5 1 1\n" + line)
    with pytest.raises(UsageError, match=said):
        read_truth(str(tmp_path)).objects("val/x.png")


def test_a_picture_that_is_none(tmp_path: Path) -> None:
    dataset(str(tmp_path), b"0 0.5 0.5 1 1", images__val__x__png=b"")
    put(str(tmp_path), {"images/val/x.png": b"no"})
    with pytest.raises(UsageError, match=r"val/x.png: no picture that can be read"):
        read_truth(str(tmp_path)).objects("val/x.png")

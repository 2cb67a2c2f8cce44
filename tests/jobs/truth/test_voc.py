"""PASCAL VOC's annotations."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archives.errors import UsageError
from jobs.scoring.matching import overlaps
from jobs.truth.reading import read_truth
from jobs.truth.voc import segments
from tests.conftest import put

DATA = Path(os.environ.get("WHYBOX_DATA", "/nonexistent")) / "bccd"


def thing(name: str, box: str, more: str = "") -> str:
    edges = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in edges)
    return f"<object><name>{name}</name>{more}<bndbox>{inner}</bndbox></object>"


def xml(*things: str, more: str = "") -> bytes:
    return f"<annotation>{more}\n{chr(10).join(things)}</annotation>".encode()


def png(numbers: list[list[int]]) -> bytes:
    image = Image.fromarray(np.array(numbers, dtype=np.uint8))
    image.putpalette([each // 3 for each in range(768)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_objects_by_hand(place: str) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    things = (
        thing("cat", "1 1 10 5.5", "<difficult>1</difficult><truncated>1</truncated>" + part),
        thing("<dog>".replace("<", "&lt;"), "4 4 4 4", "<difficult></difficult>"),
    )
    put(place, {"Annotations/x.xml": xml(*things), "Annotations/none.xml": xml()})
    for where in ("", "/Annotations", "/JPEGImages"):
        truth = read_truth(place + where)
        found = truth.objects("JPEGImages/x.jpg")
        assert found is not None
        # First and last pixels, from 1, to edges from 0; one pixel is a box of one pixel.
        assert found.boxes.tolist() == [[0, 0, 10, 5.5], [3, 3, 4, 4]]
        assert found.categories == ("cat", "<dog>")
        assert found.difficult.tolist() == [True, False]
        assert found.crowd.tolist() == [False, False]
        assert found.masks == (None, None)
        nothing = truth.objects("none.jpg")
        assert nothing is not None
        assert (len(nothing), nothing.boxes.shape) == (0, (0, 4))
        assert truth.objects("other.jpg") is None


def test_the_overlap_is_that_of_vocs_own_program(tmp_path: Path) -> None:
    things = (thing("a", "3 4 10 12"), thing("a", "6 5 14 9"))
    put(str(tmp_path), {"Annotations/x.xml": xml(*things)})
    found = read_truth(str(tmp_path)).objects("x.jpg")
    assert found is not None
    pixels = np.array([[3, 4, 10, 12], [6, 5, 14, 9]], dtype=float)
    assert np.array_equal(overlaps(found.boxes, found.boxes), overlaps(pixels, pixels, pixel=1))
    assert overlaps(found.boxes, found.boxes)[0, 1] == 25 / (72 + 45 - 25)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<a/>", "x.xml: expected VOC's <annotation>, got <a>"),
        (b"<annotation>", "x.xml, line 1: no XML"),
        (b"<!DOCTYPE a><annotation/>", "line 1: a document type declaration"),
        (xml("<object><name>a</name></object>"), "x.xml, line 2: an object without <bndbox>"),
        (xml(thing("", "1 1 2 2")), "line 2: an object without a <name>"),
        (xml(thing("a", "1 1 x 2")), "line 2, <xmax>: expected a number, got 'x'"),
        (xml(thing("a", "1 1 nan 2")), "line 2, <xmax>: expected a number, got 'nan'"),
        (xml(thing("a", "3 1 2 2")), "line 2: expected xmin <= xmax .* got 3, 1, 2, 2"),
        (xml(thing("a", "1 1 2 2", "<difficult>x</difficult>")), "<difficult>: expected 0 or 1"),
        (
            xml("<object><name>a</name>\n<bndbox><xmin>1</xmin></bndbox></object>"),
            "line 3: a <bndbox> without <ymin>",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, data: bytes, said: str) -> None:
    put(str(tmp_path), {"Annotations/x.xml": data})
    with pytest.raises(UsageError, match=said):
        read_truth(str(tmp_path)).objects("x.jpg")


def test_masks_go_to_the_objects_whose_boxes_they_fill(tmp_path: Path) -> None:
    numbers = [[2, 2, 255, 1], [2, 2, 255, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    things = [thing("a", "4 1 4 2"), thing("b", "1 1 2 2"), thing("c", "3 3 4 4")]
    told = "<segmented>1</segmented>"
    files = {
        "Annotations/x.xml": xml(*things, more=told),
        "Annotations/y.xml": xml(*things),
        "SegmentationObject/x.png": png(numbers),
        "SegmentationObject/y.png": png(numbers),
    }
    put(str(tmp_path), files)
    found = read_truth(str(tmp_path)).objects("x.jpg")
    assert found is not None
    first, second, third = found.masks
    assert first is not None
    assert second is not None
    assert np.argwhere(first).tolist() == [[0, 3], [1, 3]]
    assert np.argwhere(second).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert third is None
    for truth, key in (
        (read_truth(str(tmp_path), masks=False), "x.jpg"),
        (read_truth(str(tmp_path)), "y.jpg"),
    ):
        unread = truth.objects(key)
        assert unread is not None
        assert unread.masks == (None,) * 3
    with pytest.raises(UsageError, match=r"m\.png: no PNG that can be read"):
        segments(b"no", found.boxes, "m.png")


@pytest.mark.skipif(not DATA.is_dir(), reason="WHYBOX_DATA names no folder with bccd/ in it")
def test_bccd() -> None:
    truth = read_truth(str(DATA))
    boxes = truth.objects("JPEGImages/BloodImage_00338.jpg")
    assert boxes is not None
    assert [503, 336, 504, 337] in boxes.boxes.tolist()  # its point is one pixel here
    names = [path.stem for path in sorted((DATA / "Annotations").iterdir())]
    found = [truth.objects(f"{name}.jpg") for name in names]
    counts = [len(each) for each in found if each is not None]
    assert (len(counts), sum(counts)) == (364, 4888)

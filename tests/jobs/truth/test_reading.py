"""Which form ground truth has, by what lies there."""

from __future__ import annotations

from pathlib import Path

import pytest

from archives.errors import UsageError
from jobs.truth.coco import CocoTruth
from jobs.truth.reading import read_truth
from jobs.truth.voc import VocTruth
from jobs.truth.yolo import YoloTruth
from tests.conftest import put
from tests.jobs.truth.test_coco import coco

XML = b"<annotation/>"
ALL: dict[str, bytes] = {"x.xml": XML, "x.txt": b"", "classes.txt": b"cat", "x.json": coco()}


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        # VOC's own lists are text files; COCO's results may lie beside its annotations.
        ({"Annotations/x.xml": XML, "ImageSets/Main/aeroplane_x.txt": b""}, VocTruth),
        ({"x.xml": XML, "x.jpg": b""}, VocTruth),
        ({"labels/x.txt": b"", "classes.txt": b"cat", "x.json": b""}, YoloTruth),
        ({"x.txt": b"", "classes.txt": b"cat"}, YoloTruth),
        (
            {"annotations/instances_a.json": coco(), "annotations/b.json": b"", "r.json": b""},
            CocoTruth,
        ),
        ({"x.json": coco()}, CocoTruth),
    ],
)
def test_the_form_is_told(tmp_path: Path, files: dict[str, bytes], kind: type) -> None:
    put(str(tmp_path), files)
    assert type(read_truth(str(tmp_path))) is kind


def test_several_forms_are_asked_about(tmp_path: Path) -> None:
    put(str(tmp_path), ALL)
    with pytest.raises(
        UsageError, match="in the forms voc and yolo and coco; say which with --truth"
    ):
        read_truth(str(tmp_path))
    for form, kind in (("voc", VocTruth), ("yolo", YoloTruth), ("coco", CocoTruth)):
        assert type(read_truth(str(tmp_path), form)) is kind


@pytest.mark.parametrize(
    ("files", "form", "said"),
    [
        ({}, "auto", r"no ground truth at .*Annotations.*annotations/instances.*labels/"),
        ({}, "voc", r"looked for Annotations/\*.xml there or beside it, \*.xml$"),
        ({"x.txt": b""}, "coco", "no ground truth"),
        ({"x.txt": b""}, "auto", "have no names: expected classes.txt"),
        ({"a.json": b"", "b.json": b""}, "auto", "holds a.json, b.json; say which one"),
        (ALL, "cvat", "got the form 'cvat'; expected auto, voc, coco, yolo"),
    ],
)
def test_what_is_not_there(tmp_path: Path, files: dict[str, bytes], form: str, said: str) -> None:
    put(str(tmp_path), files | {"x.jpg": b""})
    with pytest.raises(UsageError, match=said):
        read_truth(str(tmp_path), form)


def test_a_single_file_is_cocos(tmp_path: Path) -> None:
    put(str(tmp_path), ALL)
    assert type(read_truth(str(tmp_path / "x.json"))) is CocoTruth
    for name, form in (("x.xml", "auto"), ("x.json", "voc")):
        with pytest.raises(UsageError, match=f"{name} is a file; expected COCO's instances"):
            read_truth(str(tmp_path / name), form)


MASK = "SegmentationObject/x.png"


@pytest.mark.parametrize(
    ("files", "changed", "form"),
    [
        ({"Annotations/x.xml": XML, "x.jpg": b""}, {"Annotations/x.xml": XML[:-1] + b" "}, "voc"),
        ({"Annotations/x.xml": XML, MASK: b"a"}, {MASK: b"b"}, "voc"),
        ({"Annotations/x.xml": XML}, {"Annotations/y.xml": XML}, "voc"),
        ({"labels/x.txt": b"0", "classes.txt": b"cat"}, {"labels/x.txt": b"1"}, "yolo"),
        ({"labels/x.txt": b"0", "classes.txt": b"cat"}, {"classes.txt": b"dog"}, "yolo"),
        ({"x.json": coco()}, {"x.json": coco().replace(b'"cat"', b'"cow"')}, "coco"),
    ],
)
def test_a_change_is_told(
    place: str, files: dict[str, bytes], changed: dict[str, bytes], form: str
) -> None:
    put(place, files)
    assert read_truth(place).form == form
    before = read_truth(place).fingerprint()
    put(place, {"other.csv": b"", "x.jpg": b"new"})
    assert read_truth(place).fingerprint() == before
    put(place, changed)
    assert read_truth(place).fingerprint() != before

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from archives.golden import EXPECTED, HEATMAPS, PICTURE, Answer, differences, read_golden
from handlers.explainer import Explainer, ExplainRequest
from handlers.images import decode_picture
from handlers.manifest import ArchiveError
from tests.archives.golden_stub import EXPLANATIONS, MAPS, REQUEST, packed, stub_files, write_stub
from tests.other_detectors import KINDS, build_other

ANSWER = Answer(
    np.array([[1.0, 2, 30, 40], [5, 5, 9, 9]]),
    np.array([1, 2]),
    np.array([0.9, 0.4]),
    (np.full((2, 2), 4, np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)),
)


def moved(answer: Answer, **changed: Any) -> Answer:
    return replace(
        answer, **{name: change(getattr(answer, name)) for name, change in changed.items()}
    )


def swapped(answer: Answer) -> Answer:
    return moved(
        answer, **dict.fromkeys(("boxes", "labels", "scores", "heatmaps"), lambda v: v[::-1])
    )


@pytest.mark.parametrize(
    "found",
    [
        ANSWER,
        swapped(ANSWER),
        moved(ANSWER, boxes=lambda v: v + 0.049, scores=lambda v: v - 0.9e-4),
        moved(ANSWER, heatmaps=lambda v: (v[0] * 1.0009, v[1] + 0.0049)),
    ],
)
def test_what_is_the_same(found: Answer) -> None:
    assert differences(ANSWER, found) == []


FIRST = "box [1.00, 2.00, 30.00, 40.00] of label 1"


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (
            moved(ANSWER, boxes=lambda v: v + np.array([[0.06], [0]])),
            [f"{FIRST}: found 0.06 px away, at [1.06, 2.06, 30.06, 40.06]; 0.05 are allowed"],
        ),
        (
            moved(ANSWER, scores=lambda v: v + np.array([2e-4, 0])),
            [f"{FIRST}: score 0.900200 instead of 0.900000"],
        ),
        (
            moved(ANSWER, heatmaps=lambda v: (v[0] * 1.002, v[1])),
            [f"{FIRST}: its heatmap differs by 0.002 of its maximum; 0.001 are allowed"],
        ),
        (
            moved(ANSWER, heatmaps=lambda v: (v[1], v[1])),
            [f"{FIRST}: its heatmap has 2 x 3 cells instead of 2 x 2"],
        ),
        (
            moved(ANSWER, labels=lambda v: np.array([3, 2])),
            [f"not found: {FIRST}", f"not expected: {FIRST[:-1]}3"],
        ),
        (
            Answer(ANSWER.boxes[1:], ANSWER.labels[1:], ANSWER.scores[1:], ANSWER.heatmaps[1:]),
            [f"not found: {FIRST}"],
        ),
    ],
)
def test_what_differs(found: Answer, lines: list[str]) -> None:
    assert differences(ANSWER, found) == lines


def test_maps_of_several_layers_share_a_box() -> None:
    both = moved(
        ANSWER, boxes=lambda v: v[[0, 0]], labels=lambda v: v[[0, 0]], scores=lambda v: v[[0, 0]]
    )
    assert differences(both, swapped(both)) == []


def test_it_is_read_from_a_file_and_from_a_folder(tmp_path: Path) -> None:
    path = write_stub(tmp_path / "stub.mar")
    with zipfile.ZipFile(path) as opened:
        opened.extractall(tmp_path / "out")
    for golden in (read_golden(path), read_golden(tmp_path / "out")):
        assert golden.request == REQUEST
        assert decode_picture(golden.picture).shape == (3, 48, 288)
        assert golden.expected.boxes.tolist() == [each["box"] for each in EXPLANATIONS]
        assert golden.expected.scores.tolist() == [0.5, 0.4]
        for found, expected in zip(golden.expected.heatmaps, MAPS, strict=True):
            np.testing.assert_array_equal(found, expected)


def expected(**changed: Any) -> bytes:
    return json.dumps({"request": REQUEST, "explanations": EXPLANATIONS} | changed).encode()


def labelled(label: Any) -> bytes:
    return expected(explanations=[each | {"label": label} for each in EXPLANATIONS])


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({EXPECTED: b"{"}, "is malformed"),
        ({EXPECTED: b"[]"}, "is malformed"),
        ({EXPECTED: b'{"request": {}, "explanations": []}'}, r"maps of no box: \['0', '1'\]"),
        ({EXPECTED: b"[" * 100_000}, "nested too deep"),
        ({EXPECTED: b"[" * 100 + b"]" * 100}, "nested 100 deep"),
        ({EXPECTED: expected(explanations={"0": 1, "1": 2})}, "should be a list of tables"),
        ({EXPECTED: expected(explanations=["0", "1"])}, "should be a list of tables"),
        ({EXPECTED: labelled(10**30)}, "a label is no label"),
        ({EXPECTED: labelled({})}, "is malformed"),
        ({EXPECTED: labelled(float("inf"))}, "is malformed"),
        ({EXPECTED: expected(request=[])}, "is malformed"),
        ({HEATMAPS: b"x"}, "is malformed"),
        ({HEATMAPS: safetensors.numpy.save({"0": MAPS[0]})}, "KeyError: '1'"),
        (
            {HEATMAPS: safetensors.numpy.save({"0": MAPS[0], "1": MAPS[1] * np.nan})},
            "should be finite",
        ),
        (
            {HEATMAPS: safetensors.numpy.save({"0": MAPS[0], "1": MAPS[1].astype(np.float64)})},
            r"map 1 should be float32 \[h, w\], got float64",
        ),
        ({PICTURE: b""}, "is malformed"),
    ],
)
def test_malformed(changed: dict[str, bytes], text: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=text):
        read_golden(write_stub(tmp_path / "stub.mar", changed))


def test_there_is_none(tmp_path: Path) -> None:
    files = {name: data for name, data in stub_files().items() if name != EXPECTED}
    (tmp_path / "stub.mar").write_bytes(packed(files))
    with pytest.raises(ArchiveError, match="has no golden sample"):
        read_golden(tmp_path / "stub.mar")
    with pytest.raises(ArchiveError, match="cannot be read"):
        read_golden(tmp_path / "no.mar")


def agrees(archive: Path) -> None:
    """Ordinary arithmetic gives what the pinned one of the build gave."""
    golden = read_golden(archive)
    explainer = Explainer.from_archive(archive, run_code=True)
    request = ExplainRequest.from_fields(golden.request)
    explained = explainer.explain([decode_picture(golden.picture)], request)[0]
    found = Answer(
        np.array([each.box for each in explained]).reshape(-1, 4),
        np.array([each.label for each in explained]),
        np.array([each.score for each in explained]),
        tuple(each.heatmap.numpy() for each in explained),
    )
    assert len(found.labels) > 0
    assert differences(golden.expected, found) == []


def test_the_demo_gives_its_own(demo_archive: Path) -> None:
    agrees(demo_archive)


@pytest.mark.parametrize(
    "kind", ["detr", *(pytest.param(kind, marks=pytest.mark.full) for kind in KINDS[:-1])]
)
def test_other_detectors_give_their_own(kind: str, tmp_path: Path) -> None:
    agrees(build_other(kind, tmp_path, golden_sample=True))

"""The scripts that hand the gallery's data to the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.images import Geometry
from handlers.schema import Explanation
from jobs.audit.findings import Finding
from jobs.page import gallery
from jobs.page.audits import Flags
from jobs.page.gallery import write_gallery
from jobs.page.selection import chosen
from jobs.saved_run import SavedRun
from tests.conftest import remove
from tests.jobs.page.conftest import HOSTILE, audit, data_of

MakeRun = Callable[..., SavedRun]


def written(run: SavedRun, most: int = 10, pictures: bool = True) -> int:
    flags = Flags.of([audit(run, Finding("b.png", 2, "late\u202e", 0.5, "Says.", "one"))])
    found = chosen(run, flags, most)
    source = run.source() if pictures else None
    return write_gallery(
        run, found, flags, source, lambda name, data: run.output.write(f"report/{name}", data)
    )


def test_boxes_findings_and_what_they_refer_to(make_run: MakeRun) -> None:
    run = make_run("a.png", "b.png", "black.png", request={"layer": "emitting,C3"})
    assert written(run) == 0
    meta = data_of(run, "meta")
    assert meta["categories"] == ["cat", "dog"]
    assert meta["settings"] == ["odam · class · emitting", "odam · class · C3"]
    assert meta["flags"] == ["late\\u202e"]
    assert (meta["chunks"], meta["pictures"], meta["boxes"]) == (1, 3, 4)
    b, a, black = data_of(run, "index-000")
    assert [each["key"] for each in (b, a, black)] == ["b.png", "a.png", "black.png"]
    assert b["findings"] == [[2, 0, 0.5, "Says.", 0, 0]]
    assert (meta["groups"], meta["parts"]) == (["one"], ["The triage"])
    row = next(iter(run.pictures())).rows[0]
    energy = round(row["energy_in_box"], 4)
    assert a["boxes"][0] == [0, 1.0, 2.0, 6.0, 5.0, 1, 0, 0.75, 0, "0", 0, energy]
    assert [box[0] for box in a["boxes"]] == [0, 0, 2, 2]
    assert (a["width"], a["height"], black["boxes"], a["findings"]) == (12, 10, [], [])


def test_maps_and_pictures_are_the_runs(make_run: MakeRun) -> None:
    run = make_run("a.png", "b.png")
    written(run)
    data = data_of(run, "picture-00001")  # of a.png, whose grey is 100
    jpeg = Image.open(io.BytesIO(base64.b64decode(data["jpeg"])))
    assert data["size"] == [12, 10]
    assert np.abs(np.asarray(jpeg.convert("RGB"), dtype=int) - 100).max() <= 2
    picture = next(iter(run.pictures()))
    for found, row in zip(data["maps"], picture.rows, strict=True):
        expected = picture.explanation(row)
        levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["png"]))), dtype=float)
        values = found["min"] + levels / 255 * (found["max"] - found["min"])
        step = (found["max"] - found["min"]) / 255
        assert values == pytest.approx(expected.heatmap.numpy(), abs=step)
        assert Geometry.from_dict(data["geometries"][found["geometry"]]) == expected.geometry


def test_what_cannot_be_read_any_more_is_an_empty_frame(make_run: MakeRun) -> None:
    run = make_run("a.png", "b.png")
    remove(run.record["input"]["root"], "a.png")
    assert written(run) == 1
    assert data_of(run, "picture-00001")["jpeg"] is None
    assert data_of(run, "picture-00000")["jpeg"] is not None


def test_private_pictures_leave_no_pixel(make_run: MakeRun) -> None:
    run = make_run("a.png", "b.png")
    assert written(run, pictures=False) == 0
    assert data_of(run, "meta")["pixels"] is False
    for number in range(2):
        data = data_of(run, f"picture-{number:05d}")
        assert (data["jpeg"], data["size"]) == (None, None)
        assert len(data["maps"]) == 2


def test_only_the_worst_are_written_and_the_first_script_is_small(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "FIRST_BOXES", 2)
    monkeypatch.setattr(gallery, "MORE_BOXES", 5)
    run = make_run(*(f"{letter}.png" for letter in "abcdef"), shard_size=2)
    written(run, most=5)
    names = sorted(entry.key for entry in run.output.entries("report/data/"))
    assert [name for name in names if "picture" in name] == [
        f"report/data/picture-{number:05d}.js" for number in range(5)
    ]
    chunks = [
        data_of(run, f"index-{number:03d}") for number in range(data_of(run, "meta")["chunks"])
    ]
    assert [[each["key"][0] for each in chunk] for chunk in chunks] == [
        ["b"],
        ["a", "c"],
        ["d", "e"],
    ]


def test_hostile_keys_stay_data(make_run: MakeRun) -> None:
    run = make_run(*HOSTILE)
    written(run)
    found = {each["key"]: each.get("shown", each["key"]) for each in data_of(run, "index-000")}
    assert set(found) == set(HOSTILE)
    assert found[HOSTILE[1]] == "\"onload='alert(1)' & {{ 7*7 }}\\u000a.png"
    assert found[HOSTILE[2]] == "\\u202egnp.exe#x=1&y=%2F.png"


def test_large_maps_are_averaged_in_blocks() -> None:
    heat = torch.arange(256 * 512, dtype=torch.float32).reshape(256, 512)
    geometry = Geometry(512, 256, 512.0, 256.0, 1.0, 1.0)
    explanation = Explanation(
        0, (0, 0, 9, 9), 1, "cat", 0.5, "drise", "class", "x", "0", heat, geometry
    )
    found = gallery._map(explanation)
    assert (found["width"], found["height"]) == (128, 64)
    assert found["min"] == float(heat[:4, :4].mean())
    assert found["max"] == float(heat[-4:, -4:].mean())
    small = gallery._map(replace(explanation, heatmap=heat[:3, :5]))
    assert (small["width"], small["height"], small["max"]) == (5, 3, 512 * 2 + 4)

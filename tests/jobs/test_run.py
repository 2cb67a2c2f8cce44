"""Whole jobs in this process: what they write, and how they are taken up again."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from archives.errors import ConflictError, StoreRefusedError
from archives.stores.opening import open_store
from handlers.explainer import Explainer, ExplainRequest
from handlers.images import decode_picture
from handlers.metrics.pointing import energy_in_box, peak
from jobs.record import check_same_job
from jobs.tables import read_npz
from tests.conftest import put, random_picture, remove
from tests.jobs.conftest import GREYS, MakeJob, contents, picture_bytes, record, rows, sheet_size


def test_a_job_from_place_to_place(place: str, make_job: MakeJob) -> None:
    put(f"{place}/in", GREYS)
    job = make_job(f"{place}/in", f"{place}/out", overlays="all")
    assert job.run() == 0
    names = ["detections.parquet", "failures.parquet", "heatmaps.npz"]
    shards = {0: "012", 1: "345", 2: "67"}
    assert contents(job.output).keys() == {
        "contact-sheet.jpg",
        "listing/00000.parquet",
        *(f"shards/0000{shard}/{name}" for shard in shards for name in names),
        *(f"shards/0000{s}/overlays/{n}.png.jpg" for s, numbers in shards.items() for n in numbers),
    }
    stats = json.loads(open_store(job.output).read("shards/00000/stats.json"))
    del stats["seconds"]
    files = contents(job.output)
    assert stats.pop("sha256") == {
        name: hashlib.sha256(files[f"shards/00000/{name}"]).hexdigest() for name in names
    }
    assert stats == {
        "shard": 0,
        "pictures": 3,
        "pictures_with_detections": 2,
        "detections": 4,
        "failures": 0,
        "categories": {"cat": 2, "dog": 2},
        "shortened_names": {},
    }


def test_the_record_says_what_was_done(source: str, make_job: MakeJob) -> None:
    job = make_job(source, request={"method": "gradcam", "box": (1.0, 2.0, 3.0, 4.0)})
    job.run()
    found = record(job.output)
    times = found.pop("times")
    assert times["started"] <= times["finished"]
    assert len(found["input"].pop("fingerprint")) == 64
    assert found == {
        "schema_version": 3,
        "status": "done",
        "archive": {"name": "demo", "version": "1.0", "digest": "ab" * 32, "uri": "demo.mar"},
        "options": {
            "method": "gradcam",
            "target": "class",
            "layer": None,
            "fuse": False,
            "category": None,
            "score_threshold": 0.5,
            "max_detections": 100,
            "box": [1.0, 2.0, 3.0, 4.0],
            "candidates": 0,
            "sum_boxes": False,
            "shared": False,
            "save_raw": False,
            "normalize_in_box": False,
            "smooth": 0.0,
            "center_prior": 0.0,
            "ablation": "fixed",
            "channels": 1.0,
            "masks": None,
            "seed": 0,
            "precision": "fp32",
            "shard_size": 3,
            "overlays": "each",
        },
        "execution": {"engine": "local", "device": "cpu", "batch_size": 2, "pictures": True},
        "input": {"uris": [source], "manifest": None, "root": source},
        "counts": {
            "pictures": 8,
            "pictures_with_detections": 7,
            "detections": 14,
            "failures": 0,
            "shards": 3,
            "categories": {"cat": 7, "dog": 7},
        },
        "outputs": {"contact_sheet": True, "coco": False},
    }


def test_rows_and_heatmaps_hold_what_the_explainer_says(
    tmp_path: Path, explainer: Explainer, make_job: MakeJob
) -> None:
    picture = random_picture(90, 120)
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    put(str(tmp_path / "in"), {"b/é.png": buffer.getvalue()})
    job = make_job(str(tmp_path / "in"), request={"score_threshold": 0.0, "max_detections": 4})
    job.explainer = explainer  # type: ignore[assignment]  # a real detector instead of the quick one
    assert job.run() == 0
    expected = explainer.explain(
        [decode_picture(buffer.getvalue())], ExplainRequest(score_threshold=0.0, max_detections=4)
    )[0]
    maps = read_npz(open_store(job.output).read("shards/00000/heatmaps.npz"))
    assert [name.partition("#")[0] for name in maps] == ["b%2F%C3%A9.png"] * 4
    for row, each in zip(rows(job.output), expected, strict=True):
        assert (row["key"], row["index"], row["width"], row["height"]) == (
            "b/é.png",
            each.index,
            120,
            90,
        )
        assert (row["x1"], row["y1"], row["x2"], row["y2"]) == pytest.approx(each.box, abs=0.05)
        assert (row["label"], row["category"], row["level"]) == (
            each.label,
            each.category,
            each.level,
        )
        assert (row["method"], row["target"], row["layer"]) == ("odam", "class", "emitting")
        assert row["score"] == pytest.approx(each.score, abs=1e-4)
        assert (row["map_height"], row["map_width"]) == tuple(each.heatmap.shape)
        assert row["map_max"] == pytest.approx(float(each.heatmap.max()), rel=1e-3)
        assert json.loads(row["geometry"]) == each.geometry.to_dict()
        assert row["energy_in_box"] == pytest.approx(energy_in_box(each), abs=1e-3)
        assert (row["peak_x"], row["peak_y"]) == pytest.approx(peak(each), abs=0.05)
        stored = maps[f"b%2F%C3%A9.png#{each.index}"]
        assert stored.dtype == np.float16
        np.testing.assert_allclose(
            stored.astype(np.float32) * row["map_max"],
            each.heatmap.numpy(),
            atol=2e-3 * row["map_max"],
        )


def test_maps_too_faint_for_float16_are_kept(source: str, make_job: MakeJob) -> None:
    job = make_job(source)
    job.run()
    maps = read_npz(open_store(job.output).read("shards/00000/heatmaps.npz"))
    expected = (np.arange(6) / 5).astype(np.float16).reshape(2, 3)
    np.testing.assert_array_equal(maps["1.png#2"], expected)
    assert rows(job.output)[0]["map_max"] == pytest.approx(5e-8, rel=1e-6)


def test_several_layers_are_rows_maps_and_panels_of_their_own(
    source: str, make_job: MakeJob
) -> None:
    job = make_job(f"{source}/1.png", request={"layer": "roi,body.layer4", "save_raw": True})
    job.run()
    store = open_store(job.output)
    assert [(row["index"], row["layer"]) for row in rows(job.output)] == [
        (0, "roi"),
        (0, "body.layer4"),
        (2, "roi"),
        (2, "body.layer4"),
    ]
    maps = read_npz(store.read("shards/00000/heatmaps.npz"))
    np.testing.assert_allclose(maps["1.png#2#roi"], np.arange(6).reshape(2, 3) / 5, atol=1e-3)
    expected = np.array([[2, 0, 1], [5, 3, 4]]) / 5
    np.testing.assert_allclose(maps["1.png#2#body.layer4"], expected, atol=1e-3)
    counts = record(job.output)["counts"]
    assert (counts["detections"], counts["categories"]) == (2, {"cat": 1, "dog": 1})
    endings = ["000.jpg", "002.jpg", "boxes.jpg", "jpg"]
    overlays = [f"shards/00000/overlays/1.png.{ending}" for ending in endings]
    sizes = [Image.open(io.BytesIO(store.read(name))).size for name in overlays]
    assert sizes[0] == sizes[1] == sizes[3] == (264, sizes[0][1])
    assert sizes[2] == (12, 10)
    assert sheet_size(job.output) == (328 + 8, 275 + 8)


def test_raw_activations_and_gradients_are_kept_when_asked_for(
    source: str, make_job: MakeJob
) -> None:
    job = make_job(f"{source}/1.png", request={"save_raw": True})
    job.run()
    raw = read_npz(open_store(job.output).read("shards/00000/raw/1.png.npz"))
    assert list(raw) == [f"1.png#{i}/{kind}" for i in (0, 2) for kind in ("activation", "gradient")]
    assert raw["1.png#2/activation"].dtype == np.float32
    np.testing.assert_array_equal(raw["1.png#2/activation"], [[[0, 1, 2], [3, 4, 5]]])
    np.testing.assert_array_equal(raw["1.png#2/gradient"], [[[-1, 0, 1], [2, 3, 4]]])


@pytest.mark.parametrize(
    "request_fields",
    [{"candidates": 6}, {"score_threshold": 0.0, "max_detections": 3, "sum_boxes": True}],
)
def test_why_not_and_sums_are_rows(
    request_fields: dict[str, Any], tmp_path: Path, explainer: Explainer, make_job: MakeJob
) -> None:
    put(str(tmp_path / "in"), {"a.png": picture_bytes(120, 90)})
    job = make_job(str(tmp_path / "in"), request=request_fields)
    job.explainer = explainer  # type: ignore[assignment]  # a real detector instead of the quick one
    assert job.run() == 0
    picture = decode_picture(picture_bytes(120, 90))
    expected = explainer.explain([picture], ExplainRequest(**request_fields))[0]
    assert [
        (row["index"], row["outcome"], row["suppressed_by"], tuple(row["together"]))
        for row in rows(job.output)
    ] == [(each.index, each.outcome, each.suppressed_by, each.together) for each in expected]
    assert any(each.outcome != "reported" or len(each.together) == 3 for each in expected)


@pytest.mark.parametrize(
    ("asked", "ending"),
    [
        ("none", []),
        ("all", ["jpg"]),
        ("each", ["000.jpg", "002.jpg", "boxes.jpg", "jpg"]),
        ("auto", ["000.jpg", "002.jpg", "boxes.jpg", "jpg"]),
    ],
)
def test_overlays(source: str, make_job: MakeJob, asked: str, ending: list[str]) -> None:
    job = make_job(f"{source}/1.png", overlays=asked)
    job.run()
    found = [key for key in contents(job.output) if "/overlays/" in key]
    assert sorted(found) == [f"shards/00000/overlays/1.png.{each}" for each in ending]
    assert all(Image.open(io.BytesIO(contents(job.output)[key])).size == (12, 10) for key in found)


def test_overlays_are_not_drawn_unasked_for_many_pictures_or_from_a_bucket(
    tmp_path: Path, bucket: str, make_job: MakeJob
) -> None:
    put(str(tmp_path / "in"), {f"{number}.png": b"" for number in range(101)})
    put(bucket, GREYS)
    for source, output in ((str(tmp_path / "in"), "a"), (bucket, "b")):
        job = make_job(source, str(tmp_path / output), shard_size=200)
        job.run()
        assert record(job.output)["options"]["overlays"] == "none"


def test_keys_too_long_for_a_file_name(tmp_path: Path, make_job: MakeJob) -> None:
    key = "/".join(["é" * 60] * 3) + ".png"
    put(str(tmp_path / "in"), {key: picture_bytes()})
    job = make_job(str(tmp_path / "in"))
    assert job.run() == 0
    stats = json.loads(open_store(job.output).read("shards/00000/stats.json"))
    assert list(stats["shortened_names"].values()) == [key]
    short = next(iter(stats["shortened_names"]))
    assert f"shards/00000/overlays/{short}.000.jpg" in contents(job.output)


def test_taking_up_a_run_does_only_the_missing_shard(place: str, make_job: MakeJob) -> None:
    put(f"{place}/in", GREYS)
    job = make_job(f"{place}/in", f"{place}/out")
    job.run()
    before, started = contents(job.output), record(job.output)["times"]["started"]
    job.explainer.explained = 0
    remove(job.output, "shards/00001/stats.json")
    remove(job.output, "contact-sheet.jpg")
    assert job.run(batch_size=1) == 0
    assert job.explainer.explained == 3
    assert contents(job.output) == before
    assert record(job.output)["times"]["started"] == started
    assert record(job.output)["counts"]["detections"] == 14


def test_a_finished_run_says_so(
    source: str, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(source, request={"box": (1.0, 2.0, 3.0, 4.0)})
    job.run()
    assert f"{job.output}/run.json" in capsys.readouterr().out
    job.explainer.explained = 0
    assert job.run() == 0
    assert "done already; nothing was explained again" in capsys.readouterr().out
    assert job.explainer.explained == 0


def test_a_finished_run_with_failures_stays_one(tmp_path: Path, make_job: MakeJob) -> None:
    put(str(tmp_path / "in"), {"a.png": b""})
    job = make_job(str(tmp_path / "in"))
    assert [job.run(), job.run()] == [3, 3]
    assert not record(job.output)["outputs"]["contact_sheet"]


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"request": {"method": "gradcam"}}, "method was 'odam', now 'gradcam'"),
        ({"request": {"score_threshold": 0.25}}, "score_threshold was 0.5, now 0.25"),
        ({"shard_size": 4}, "shard_size was 3, now 4"),
        ({"overlays": "none"}, "overlays was 'each', now 'none'"),
        ({"pictures": False}, "overlays was 'each', now 'none'"),  # private, but they lie there
        ({"precision": "bf16"}, "precision was 'fp32', now 'bf16'"),
    ],
)
def test_other_options_are_a_conflict(
    source: str, make_job: MakeJob, options: dict[str, Any], changed: str
) -> None:
    job = make_job(source)
    job.run()
    before = {**contents(job.output), "run.json": open_store(job.output).read("run.json")}
    with pytest.raises(ConflictError, match=changed) as caught:
        job.run(**options)
    assert caught.value.exit_code == 6
    after = {**contents(job.output), "run.json": open_store(job.output).read("run.json")}
    assert after == before


def test_another_archive_and_changed_input_are_conflicts(source: str, make_job: MakeJob) -> None:
    job = make_job(source)
    job.run()
    job.digest = "cd" * 32
    put(source, {"9.png": picture_bytes()})
    said = r"archive digest was 'abab.*the input is another: 1 picture added \(9\.png\)"
    with pytest.raises(ConflictError, match=said):
        job.run()


@pytest.mark.parametrize("data", [b"not json", b"[]", b'{"schema_version": 1}'])
def test_a_foreign_run_json_is_a_conflict(source: str, make_job: MakeJob, data: bytes) -> None:
    job = make_job(source)
    put(job.output, {"run.json": data})
    with pytest.raises(ConflictError, match=r"run\.json"):
        job.run()
    assert open_store(job.output).read("run.json") == data


def test_only_how_it_is_run_may_differ() -> None:
    one = {
        "archive": {"digest": "a", "uri": "x"},
        "options": {"method": "odam"},
        "input": {"fingerprint": "f", "root": "here"},
        "counts": {"pictures": 1},
        "execution": {"device": "cpu"},
    }
    other = {**one, "execution": {"device": "cuda"}, "input": {"fingerprint": "f", "root": "there"}}
    check_same_job(one, other, "out")


def test_an_output_that_cannot_be_written_is_found_before_any_work(
    source: str, make_job: MakeJob
) -> None:
    job = make_job(source, f"{source}/1.png/out")
    with pytest.raises(StoreRefusedError, match="cannot be written"):
        job.run()
    assert job.explainer.explained == 0

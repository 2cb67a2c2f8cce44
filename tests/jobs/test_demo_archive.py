"""A job with the demo's real archive gives what its explainer gives."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archives.stores.opening import open_store
from handlers.explainer import Explainer, ExplainRequest
from handlers.images import decode_picture, to_image
from handlers.render import encode_jpeg, overlay_all
from jobs.__main__ import main
from jobs.sweep import draw
from jobs.tables import read_npz, read_rows
from tests.conftest import put, scene_picture
from tests.jobs.conftest import picture_bytes

REQUEST = ExplainRequest(method="layercam", target="probability", score_threshold=0.2)
OPTIONS = ["--method", "layercam", "--target", "probability", "--score-threshold", "0.2"]


def test_a_folder_of_scenes_and_broken_pictures(
    demo_archive: Path, demo: Explainer, tmp_path: Path
) -> None:
    scenes = {f"{number}.jpg": encode_jpeg(to_image(scene_picture(number))) for number in range(3)}
    broken = {"3.jpg": scenes["0.jpg"][:2000], "4.png": picture_bytes(3000, 1)}
    put(str(tmp_path / "in"), {**scenes, **broken, "5.png": picture_bytes(1, 1)})
    command = ["explain", "--archive", str(demo_archive), "--input", str(tmp_path / "in")]
    assert main([*command, "--output", str(tmp_path / "out"), *OPTIONS]) == 3

    output = open_store(str(tmp_path / "out"))
    failed = read_rows(output.read("shards/00000/failures.parquet"))
    assert [(row["key"], row["stage"], row["error"]) for row in failed] == [
        ("3.jpg", "decode", "PictureError"),
        ("4.png", "explain", "PictureError"),
    ]
    rows = read_rows(output.read("shards/00000/detections.parquet"))
    maps = read_npz(output.read("shards/00000/heatmaps.npz"))
    expected = [
        (key, each)
        for key, data in scenes.items()
        for each in demo.explain([decode_picture(data)], REQUEST)[0]
    ]
    assert len(rows) == len(maps) == len(expected) > 0
    for row, (key, each) in zip(rows, expected, strict=True):
        assert (row["key"], row["index"], row["category"]) == (key, each.index, each.category)
        assert (row["x1"], row["y1"], row["x2"], row["y2"]) == pytest.approx(each.box, abs=0.05)
        assert row["score"] == pytest.approx(each.score, abs=1e-4)
        stored = maps[f"{key}#{each.index}"].astype(np.float32) * row["map_max"]
        np.testing.assert_allclose(stored, each.heatmap.numpy(), atol=2e-3 * row["map_max"])
        assert output.find(f"shards/00000/overlays/{key}.{each.index:03d}.jpg")
    assert output.find("contact-sheet.jpg")


def test_the_input_is_a_layer_and_the_record_says_what_was_asked(
    demo_archive: Path, demo: Explainer, tmp_path: Path
) -> None:
    picture = scene_picture(0)
    to_image(picture).save(tmp_path / "scene.png")
    asked = "--method guided --normalize-in-box --seed 5 --masks 9 --ablation fixed --channels 0.5"
    command = ["explain", "--archive", str(demo_archive), "--input", str(tmp_path / "scene.png")]
    assert main([*command, "--output", str(tmp_path / "out"), *asked.split()]) == 0
    output = open_store(str(tmp_path / "out"))
    rows = read_rows(output.read("shards/00000/detections.parquet"))
    assert {row["layer"] for row in rows} == {"input"}
    options = json.loads(output.read("run.json"))["options"]
    given = {"normalize_in_box": True, "seed": 5, "masks": 9, "ablation": "fixed", "channels": 0.5}
    assert {name: options[name] for name in given} == given
    request = ExplainRequest(method="guided", normalize_in_box=True)
    expected = encode_jpeg(overlay_all(picture, demo.explain([picture], request)[0]))
    drawn = output.read("shards/00000/overlays/scene.png.jpg")
    one, other = (
        np.asarray(Image.open(io.BytesIO(data)), np.float32) for data in (drawn, expected)
    )
    assert np.abs(one - other).mean() < 0.1


def test_a_sweep_over_the_backbone(demo_archive: Path, demo: Explainer, tmp_path: Path) -> None:
    picture = scene_picture(0)
    to_image(picture).save(tmp_path / "scene.png")
    command = ["sweep", "--archive", str(demo_archive), "--input", str(tmp_path / "scene.png")]
    command += ["--output", str(tmp_path / "grid.png"), "--methods", "layercam"]
    assert main([*command, "--layers", "roi", "backbone.body.block?"]) == 0
    layers = ["roi", *(f"backbone.body.block{number}" for number in (1, 2, 3, 4))]
    request = ExplainRequest("layercam", layer=",".join(layers), max_detections=1)
    expected = draw(picture, [demo.explain([picture], request)[0]], layers=5)
    drawn = np.asarray(Image.open(tmp_path / "grid.png"), dtype=np.int16)
    assert np.abs(drawn - np.asarray(expected)).max() <= 2


@pytest.mark.full
def test_the_model_is_printed_and_nothing_else(
    demo_archive: Path, demo: Explainer, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", "--archive", str(demo_archive), "--preview-model"]
    assert main([*command, "--target", "objectness"]) == 0
    assert capfd.readouterr() == (demo.preview("objectness") + "\n", "")


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--method", "gradcamm", "gradcam, "),
        ("--target", "mask", "class, combined"),
        ("--layer", "backbone.body.block9", "backbone.body.block4"),
        ("--box", "4 3 2 1", "x1 < x2 and y1 < y2"),
        ("--category", "unicorn", "umbrella"),
        ("--device", "warp", "what torch has on this machine"),
        ("--precision", "fp8", "fp32"),
    ],
)
@pytest.mark.full
def test_unknown_names_are_answered_with_the_valid_ones(
    option: str,
    value: str,
    allowed: str,
    demo_archive: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    command = ["explain", "--archive", str(demo_archive), "--input", str(tmp_path)]
    assert main([*command, "--output", str(tmp_path / "out"), option, *value.split()]) == 2
    error = capfd.readouterr().err
    assert value.split()[0] in error
    assert allowed in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()

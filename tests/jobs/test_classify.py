"""The six pictures of a classifier, in this process and by the command line."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from archives.building.build import BuildOptions, build
from archives.errors import UsageError
from archives.stores.opening import open_store
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer, ExplainRequest
from handlers.guided import guided_backpropagation
from handlers.images import decode_picture, to_image
from handlers.render import blend, overlay
from handlers.schema import RequestError
from jobs import classify as module
from jobs.__main__ import parse
from jobs.classify import SIX, Six, classify, draw, explain, sheet
from jobs.options import ClassifyOptions
from tests.conftest import calibrated, random_picture

NAMES = ("cat", "dog", "bird")
FILES = {f"a b.png.{name}.png" for name in (*SIX, "sheet")}


def network(architecture: str) -> Explainer:
    torch.manual_seed(3)
    model = build_model(architecture, len(NAMES), {"size": 64})
    transform = model.get_submodule("transform")
    calibrated(model, torch.stack([transform(random_picture(80, 90, seed)) for seed in range(4)]))
    return Explainer.from_model(model.eval(), NAMES)


@pytest.fixture(scope="module")
def resnet() -> Explainer:
    return network("resnet18")


@pytest.fixture
def options(tmp_path: Path) -> ClassifyOptions:
    (tmp_path / "in").mkdir()
    to_image(random_picture(90, 120, seed=1)).save(tmp_path / "in" / "a b.png")
    return ClassifyOptions("a.mar", (str(tmp_path / "in"),), str(tmp_path / "out"))


def pixels(data: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def read(options: ClassifyOptions, name: str) -> NDArray[Any]:
    return pixels(open_store(options.output).read(f"a b.png.{name}.png".replace(" ", "%20")))


def test_every_option_reaches_the_worker() -> None:
    needed = "classify --archive a.mar --input b c --input d --output s3://o/p"
    assert parse(needed.split()) == ClassifyOptions("a.mar", ("b", "c", "d"), "s3://o/p")
    more = "--layer layer3 --category dog --device cuda --precision bf16"
    assert parse(f"{needed} {more}".split()) == ClassifyOptions(
        "a.mar", ("b", "c", "d"), "s3://o/p", "layer3", "dog", "cuda", "bf16"
    )


def test_seven_files_hold_what_the_explainer_says(
    options: ClassifyOptions, resnet: Explainer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(options, resnet) == 0
    names = {path.name.replace("%20", " ") for path in Path(options.output).iterdir()}
    assert names == FILES
    picture = decode_picture(Path(options.inputs[0], "a b.png").read_bytes())
    for method in ("gradcam", "gradcam++"):
        (found,) = resnet.explain([picture], ExplainRequest(method))[0]
        heat = np.asarray(blend(None, found.normalised(), 1.0))
        np.testing.assert_array_equal(read(options, f"{method}-heatmap"), heat)
        drawn = np.asarray(overlay(picture, found))
        np.testing.assert_array_equal(read(options, f"{method}-overlay"), drawn)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"a b.png: {found.category} 0.")
    assert {line.rpartition("/")[2].replace("%20", " ") for line in printed[1:]} == FILES
    # Twice gives the same, and does not take its own drawings for pictures.
    again = replace(options, output=options.inputs[0])
    assert classify(again, resnet) == classify(again, resnet) == 0
    assert len(list(Path(again.output).iterdir())) == 1 + len(FILES)


def test_gradients_are_drawn_around_grey_where_the_network_looked(
    options: ClassifyOptions, resnet: Explainer
) -> None:
    # The network takes 64 x 64 of 73 pixels on the shorter side: here those of the picture itself.
    picture = random_picture(73, 97)
    to_image(picture).save(Path(options.inputs[0], "a b.png"))
    classify(replace(options, category="bird"), resnet)
    model, inputs = resnet.detector.model, resnet.detector.prepare(picture)
    gradient = guided_backpropagation(model, lambda x: model(x)[0, [2]], inputs.tensors)[0]
    (found,) = resnet.explain([picture], ExplainRequest("gradcam", category="bird"))[0]
    heat = found.geometry.onto(found.heatmap, inputs.geometries[0], 64, 64)
    assert heat.max() > 0
    names = ("guided-backpropagation", "guided-gradcam")
    for name, values in zip(names, (gradient, gradient * heat), strict=True):
        drawn = read(options, name)
        seen = drawn[4:68, 16:80].copy()
        drawn[4:68, 16:80] = 128
        assert set(drawn.flatten()) == {128}
        largest = np.quantile(values.abs(), 0.999, method="lower")
        grey = (values.permute(1, 2, 0).numpy() / largest).clip(-1, 1) * 127.5 + 127.5
        np.testing.assert_allclose(seen, grey, atol=1)


def test_a_small_picture_is_enlarged_to_the_network_input(resnet: Explainer) -> None:
    picture = random_picture(20, 30)
    six = explain(picture, resnet, ExplainRequest("gradcam"))
    assert six.frame.scale_x > 3
    # One pixel of gradient is one pixel that is drawn.
    images = draw(picture, six, round(30 * six.frame.scale_x), labels=False)
    assert {image.size for image in images} == {(109, 73)}


def titles(monkeypatch: pytest.MonkeyPatch, picture: Tensor, six: Six) -> tuple[str, list[str]]:
    blocks: list[Any] = []
    monkeypatch.setattr(module, "draw_grid", blocks.extend)
    sheet("a.png", picture, six)
    return blocks[0].title, list(blocks[0].columns)


def test_the_sheet_says_class_rank_and_layer(
    resnet: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = random_picture(90, 120)
    (found,) = resnet.detect([picture])
    worst = NAMES[int(found.labels[2])]
    six = explain(picture, resnet, ExplainRequest("gradcam", layer="layer3", category=worst))
    title, columns = titles(monkeypatch, picture, six)
    assert title.startswith(f"{worst} 0.")
    assert title.endswith(" (rank 3): a.png, layer layer3")
    assert columns[4:] == ["guided backpropagation", "Guided Grad-CAM"]


def test_the_sheet_says_that_there_is_no_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = random_picture(90, 120)
    six = explain(picture, network("mobilenet_v2"), ExplainRequest("gradcam"))
    title, columns = titles(monkeypatch, picture, six)
    assert title.endswith(": a.png, layer features")
    assert columns[4].startswith("plain gradient, since this network has no nn.ReLU")


def test_from_bucket_to_bucket(resnet: Explainer, bucket: str, options: ClassifyOptions) -> None:
    store = open_store(bucket)
    store.write("in/a b.png", Path(options.inputs[0], "a b.png").read_bytes())
    there = replace(options, inputs=(f"{bucket}/in",), output=f"{bucket}/out")
    assert classify(there, resnet) == 0
    assert {each.key.replace("%20", " ") for each in store.entries("out/")} == {
        f"out/{name}" for name in FILES
    }


def test_a_picture_that_fails_is_named_and_the_others_are_drawn(
    options: ClassifyOptions, resnet: Explainer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(options.inputs[0])
    (folder / "bad.png").write_bytes(b"no picture")
    to_image(random_picture(1, 20_000)).save(folder / "narrow.png")
    assert classify(options, resnet) == 3
    errors = capsys.readouterr().err
    assert "jobs: bad.png: not a picture" in errors
    assert "jobs: narrow.png: a picture of 20000 x 1 pixels is too narrow" in errors
    assert len(list(Path(options.output).iterdir())) == len(FILES)
    (folder / "a b.png").unlink()
    with pytest.raises(UsageError, match="none of 2 pictures could be drawn"):
        classify(options, resnet)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"category": "cow"}, RequestError, "category: got 'cow'; allowed: cat, dog, bird"),
        ({"layer": "layer5"}, RequestError, "layer: got 'layer5'"),
        ({"layer": "layer3,layer4"}, RequestError, "allowed: one name"),
        ({"inputs": ("nowhere",)}, UsageError, "the input nowhere is not there"),
    ],
)
def test_what_cannot_be_drawn(
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    options: ClassifyOptions,
    resnet: Explainer,
) -> None:
    with pytest.raises(error, match=message):
        classify(replace(options, **changes), resnet)
    assert not Path(options.output).exists()


def test_an_archive_of_a_detector_is_refused(options: ClassifyOptions, demo: Explainer) -> None:
    with pytest.raises(UsageError, match=r"a\.mar is no classifier but a FasterRCNN; .*explain"):
        classify(options, demo)


def test_the_command_on_an_archive(options: ClassifyOptions, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    archive = build(
        BuildOptions(
            detector="squeezenet1_1",
            weights="random",
            name="small",
            version="1.0",
            export_path=tmp_path,
            categories=tmp_path / "names.txt",
            options={"size": 96},
            golden_sample=False,
        )
    )
    command = ["classify", "--archive", str(archive), "--input", options.inputs[0]]
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *command, "--output", options.output, "--category", "dog"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a b.png: dog 0.")
    assert len(list(Path(options.output).iterdir())) == len(FILES)

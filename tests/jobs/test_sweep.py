"""The grid of methods and layers, in this process; tests/jobs/test_demo_archive.py has the rest."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from archives.errors import MissingObjectError, UsageError
from archives.stores.opening import open_store
from handlers.explainer import Explainer, ExplainRequest
from handlers.images import Geometry, decode_picture, to_image
from handlers.schema import Explanation, RequestError
from jobs.options import SweepOptions
from jobs.sweep import draw, expand, sweep
from tests.conftest import CATEGORIES, random_picture, small_model

TOWER = "head.classification_head.conv."
# By hand, as the study of RetinaNet that this command repeats: each convolution, each ReLU.
STUDY = tuple(TOWER + end for end in ("0.0", "0.1", "1.0", "1.1", "2.0", "2.1", "3.0", "3.1"))


@pytest.fixture(scope="module")
def retinanet() -> Explainer:
    return Explainer.from_model(small_model("retinanet_resnet50_fpn"), CATEGORIES)


@pytest.fixture
def options(tmp_path: Path) -> SweepOptions:
    to_image(random_picture(90, 120)).save(tmp_path / "in.png")
    return SweepOptions(
        archive="unused",
        input=str(tmp_path / "in.png"),
        output=str(tmp_path / "grid.png"),
        layers=("emitting", TOWER + "[01].1"),
        request={"score_threshold": 0.0},
    )


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([TOWER + "*"], STUDY),
        ([TOWER + "?"], tuple(TOWER + end for end in "0123")),
        (["emitting", TOWER + "1.*", STUDY[2]], ("emitting", STUDY[2], STUDY[3])),
        ([STUDY[7], TOWER + "[03].1"], (STUDY[7], STUDY[1])),
        (["backbone.body.layer[34]"], ("backbone.body.layer3", "backbone.body.layer4")),
        (["no such layer", "roi"], ("no such layer", "roi")),
    ],
)
def test_patterns_stand_for_layers(
    patterns: list[str], expected: tuple[str, ...], retinanet: Explainer
) -> None:
    assert expand(patterns, retinanet, "class") == expected


@pytest.mark.parametrize(
    ("pattern", "target"), [("body.*", "class"), (TOWER + "*", "x1"), ("anchor_generator*", "x1")]
)
def test_a_pattern_without_layers(pattern: str, target: str, retinanet: Explainer) -> None:
    with pytest.raises(UsageError, match=rf"target {target} matches '.*'; .*--preview-model"):
        expand([pattern], retinanet, target)


def hot(column: int, index: int, method: str, layer: str) -> Explanation:
    """A map with heat in one of four columns."""
    heatmap = torch.zeros(1, 4)
    heatmap[0, column] = 1
    geometry = Geometry(120, 90, 120.0, 90.0, 1.0, 1.0)
    box = (0.0, 0.0, 2.0, 2.0)
    return Explanation(index, box, 1, "cat", 0.9, method, "class", layer, "0", heatmap, geometry)


def test_methods_are_rows_layers_columns_and_boxes_below_each_other() -> None:
    columns = {"odam": [0, 1, 2, 3], "gradcam": [3, 2, 1, 0]}
    rows = [
        [hot(each, place // 2, method, "ab"[place % 2]) for place, each in enumerate(order)]
        for method, order in columns.items()
    ]
    picture = torch.full((3, 90, 120), 90, dtype=torch.uint8)
    sheet = np.asarray(draw(picture, rows, layers=2)).astype(float).mean(-1)
    # Each cell is 240 x 180 pixels, and nothing else is as bright as its heat.
    left = sheet.shape[1] - 2 * 248
    lines = (sheet[:, left:] > 150).sum(1) > 30
    tops = [y for y in range(1, len(lines)) if lines[y] and not lines[y - 1]]
    found = [
        [int(sheet[top + 90, left + 248 * cell :][:240].argmax()) // 60 for cell in range(2)]
        for top in tops
    ]
    assert found == [[0, 1], [3, 2], [2, 3], [1, 0]]


def test_a_sweep_draws_what_the_explainer_says(
    options: SweepOptions, retinanet: Explainer, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = ("emitting", STUDY[1], STUDY[3])
    assert sweep(options, retinanet) == 0
    picture = decode_picture(Path(options.input).read_bytes())
    common = ExplainRequest(layer=",".join(layers), score_threshold=0.0, max_detections=1)
    rows = [
        retinanet.explain([picture], replace(common, method=method))[0]
        for method in ("gradcam", "gradcam++")
    ]
    drawn = Image.open(options.output)
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(draw(picture, rows, 3)))
    printed = f"3 layers x 2 methods for 1 box: {options.output}\n"
    assert capsys.readouterr().out == printed


def test_maps_of_a_sweep_are_shaped_as_asked(options: SweepOptions, retinanet: Explainer) -> None:
    shapes: dict[str, Any] = {"smooth": 0.1, "center_prior": 0.3}
    asked = replace(options, methods=("gradcam",), request={**options.request, **shapes})
    assert sweep(asked, retinanet) == 0
    picture = decode_picture(Path(options.input).read_bytes())
    request = ExplainRequest("gradcam", score_threshold=0.0, max_detections=1, **shapes)
    layers = ",".join(("emitting", STUDY[1], STUDY[3]))
    row = retinanet.explain([picture], replace(request, layer=layers))[0]
    drawn = np.asarray(Image.open(options.output))
    np.testing.assert_array_equal(drawn, np.asarray(draw(picture, [row], 3)))


def test_a_method_without_a_layer_stands_in_every_column(
    options: SweepOptions, retinanet: Explainer
) -> None:
    assert sweep(replace(options, methods=("gradcam", "guided")), retinanet) == 0
    picture = decode_picture(Path(options.input).read_bytes())
    common = ExplainRequest(score_threshold=0.0, max_detections=1)
    layers = ",".join(("emitting", STUDY[1], STUDY[3]))
    first = retinanet.explain([picture], replace(common, method="gradcam", layer=layers))[0]
    second = retinanet.explain([picture], replace(common, method="guided"))[0] * 3
    drawn = np.asarray(Image.open(options.output))
    np.testing.assert_array_equal(drawn, np.asarray(draw(picture, [first, second], 3)))


def test_a_sweep_from_bucket_to_bucket_as_jpeg(
    options: SweepOptions, retinanet: Explainer, bucket: str
) -> None:
    store = open_store(bucket)
    store.write("a/in.png", Path(options.input).read_bytes())
    asked = {"candidates": 2, "category": "dog", "target": "box"}
    there = replace(options, input=f"{bucket}/a/in.png", output=f"{bucket}/b.jpg", request=asked)
    assert sweep(replace(there, layers=("emitting",), methods=("odam", "odam")), retinanet) == 0
    image = Image.open(io.BytesIO(store.read("b.jpg")))
    assert image.format == "JPEG"
    assert image.height > 2 * 180


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layers": ("head.x",)}, RequestError, r"layer: got 'head\.x.*allowed: emitting, pyramid"),
        ({"methods": ("odam", "cam")}, RequestError, "method: got 'cam'; allowed: .*gradcam"),
        ({"request": {"target": "mask"}}, RequestError, "target: got 'mask'; allowed: .*class"),
        ({"request": {"score_threshold": 1.0}}, UsageError, "no box scores at least 1; lower"),
        ({"layers": ("*",), "methods": ("odam", "gradcam")}, UsageError, "240 small pictures"),
        ({"input": "no.png"}, MissingObjectError, r"there is no file .*no\.png"),
        ({"input": __file__}, UsageError, "not a picture"),
    ],
)
def test_what_cannot_be_drawn(
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    options: SweepOptions,
    retinanet: Explainer,
) -> None:
    with pytest.raises(error, match=message):
        sweep(replace(options, **changes), retinanet)
    assert not Path(options.output).exists()

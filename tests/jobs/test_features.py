"""Drawings of feature maps: the grid, the command line, the command itself."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from archives.errors import UsageError
from archives.stores.opening import open_store
from handlers.explainer import Explainer
from handlers.feature_maps import FeatureMap, FeatureView, Reduction, feature_maps
from handlers.images import Geometry, decode_picture, to_image
from handlers.render import HEAT, blend, encode_jpeg
from handlers.schema import Detections, ExplainRequest, RequestError
from jobs.__main__ import main, parse
from jobs.features import CELL, CHANNEL_CELL, _boxes, draw, features
from jobs.options import FeatureOptions
from jobs.work_order import ArchiveFacts, WorkOrder
from jobs.worker.pictures import Picture
from tests.conftest import put, random_picture, scene_picture
from tests.jobs.conftest import picture_bytes

NEEDED = "features --archive a.mar --input in --output out"
COLD, HOT = HEAT[0][1], HEAT[-1][1]


def test_defaults() -> None:
    options = parse(NEEDED.split())
    assert options == FeatureOptions("a.mar", ("in",), "out")
    assert (options.layers, options.over) == (("pyramid",), "picture")
    assert (options.channel_reduction, options.topk) == ("squeeze_mean", 4)
    assert options.arrangement == (2, 2)


def test_every_option_reaches_the_worker() -> None:
    text = f"""{NEEDED} --input b c --layers backbone.stage4,neck head --channel-reduction None
        --topk 5 --arrangement 2 3 --over network --alpha 0.25 --score-threshold 0.3 --format png
        --device cuda --precision bf16"""
    options = parse(text.split())
    assert options == FeatureOptions(
        archive="a.mar",
        inputs=("in", "b", "c"),
        output="out",
        layers=("backbone.stage4", "neck", "head"),
        channel_reduction="none",
        topk=5,
        arrangement=(2, 3),
        over="network",
        alpha=0.25,
        score_threshold=0.3,
        format="png",
        device="cuda",
        precision="bf16",
    )
    order = WorkOrder(options, ArchiveFacts("n", "1", "d"), Path("/f"))
    assert WorkOrder.from_json(order.to_json()) == order


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("features --archive a.mar --input in", "required: --output"),
        (f"{NEEDED} --topk 3", "--topk is for --channel-reduction none"),
        (f"{NEEDED} --arrangement 2 2", "--arrangement is for --channel-reduction none"),
        (f"{NEEDED} --arrangement 2 0", "at least 1, got 0"),
        (f"{NEEDED} --channel-reduction max", "'squeeze_mean', 'select_max', 'none'"),
        (f"{NEEDED} --alpha 2", "from 0 to 1, got 2"),
        (f"{NEEDED} --over both", "'picture', 'network', 'none'"),
    ],
)
def test_wrong_usage(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_heat_is_mixed_evenly_over_a_picture() -> None:
    picture = torch.full((3, 1, 2), 100, dtype=torch.uint8)
    heat = torch.tensor([[0.0, 1.0]])
    for alpha in (0.0, 0.25, 1.0):
        expected = [[[alpha * c + (1 - alpha) * 100 for c in colour] for colour in (COLD, HOT)]]
        assert np.abs(np.asarray(blend(picture, heat, alpha)) - expected).max() <= 0.51
    assert np.asarray(blend(None, heat, 0.25)).tolist() == [[list(COLD), list(HOT)]]
    three = torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1)
    assert np.asarray(blend(None, three, 0.25)).tolist() == [[[0, 128, 255]]]


def hot(layer: str, name: str, columns: list[int]) -> FeatureMap:
    """A map of 3 x 4 cells on a picture of 120 x 90 pixels, padded to 160; a channel for each hot
    column, each weaker in sum than the one before."""
    activation = torch.zeros(len(columns), 3, 4)
    for channel, column in enumerate(columns):
        activation[channel, :, column] = 10 - channel
    picture = Geometry(120, 90, 160.0, 90.0, 1.0, 1.0)
    return FeatureMap(layer, name, activation, picture, Geometry(160, 90, 160.0, 90.0, 1.0, 1.0))


def view(*maps: FeatureMap) -> FeatureView:
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), torch.zeros(0), ())
    return FeatureView(maps, torch.zeros(3, 90, 160, dtype=torch.uint8), none)


def drawn(
    maps: list[FeatureMap], reduction: Reduction, picture: Tensor | None = None, **options: Any
) -> NDArray[np.int16]:
    """The pixels of the grid."""
    pixels = torch.zeros(3, 90, 120, dtype=torch.uint8) if picture is None else picture
    asked = replace(FeatureOptions("a.mar", ("in",), "out", alpha=1.0), **options)
    sheet = draw(Picture("p.png", pixels), view(*maps), [], reduction, asked)
    return np.asarray(sheet).astype(np.int16)


def hottest(sheet: NDArray[np.int16]) -> list[list[tuple[int, int]]]:
    """Of each row of small pictures where the hottest pixels begin and end, left to right."""
    hot = (sheet[..., 0] > 250) & (sheet[..., 1] > 235) & (sheet[..., 2] < 200)
    lines = hot.sum(1) > 5
    tops = [y for y in range(1, len(lines)) if lines[y] and not lines[y - 1]]
    found = []
    for top in tops:
        edges = np.diff(hot[top + 20].astype(int))
        found.append([*zip(np.where(edges == 1)[0] + 1, np.where(edges == -1)[0] + 1, strict=True)])
    return found


def test_channels_maps_and_layers_are_nested() -> None:
    maps = [hot("neck", "0", [0, 1, 2, 3]), hot("neck", "1", [3, 2]), hot("head", "", [1, 0, 3])]
    sheet = drawn(maps, Reduction("none", 3, (2, 2)), over="none")
    # Two small pictures for each map, two maps beside each other; a hot column is a quarter.
    cell, wide, quarter = CHANNEL_CELL + 8, 2 * (CHANNEL_CELL + 8), CHANNEL_CELL // 4
    starts = [
        [0, cell + quarter, wide + 3 * quarter, wide + cell + 2 * quarter],
        [2 * quarter],
        [quarter, cell],
        [3 * quarter],
    ]
    expected = [[(8 + start, 8 + start + quarter) for start in row] for row in starts]
    assert hottest(sheet) == expected


def test_heat_lies_where_the_picture_or_the_input_has_it() -> None:
    """Of columns of 40 pixels the third ends where the picture does, and the padding begins."""
    maps = [hot("a", "", [2]), hot("b", "", [1])]
    for over, width in (("picture", 120), ("network", 160)):
        (found,) = hottest(drawn(maps, Reduction("select_max"), over=over))
        middles = [(start + end) / 2 for start, end in found]
        left = [8, 8 + CELL + 8]
        expected = [x + middle / width * CELL for x, middle in zip(left, (100, 60), strict=True)]
        assert middles == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize(("over", "alpha", "level"), [("picture", 0, 200), ("network", 0, 0)])
def test_maps_lie_over_what_was_asked_for(over: str, alpha: float, level: int) -> None:
    picture = torch.full((3, 90, 120), 200, dtype=torch.uint8)
    sheet = drawn([hot("a", "", [0])], Reduction(), picture, over=over, alpha=alpha)
    lower = sheet[CELL + 60 :, 8 : 8 + CELL]
    assert (lower == level).all(-1).mean() > 0.5


def test_many_maps_go_into_several_rows_of_equal_pictures() -> None:
    maps = [hot("neck", str(number), [0]) for number in range(7)]
    found = hottest(drawn(maps, Reduction(), over="none"))
    starts = [8 + place * (CELL + 8) for place in range(5)]
    assert [[start for start, _ in row] for row in found] == [starts, starts[:2]]


@pytest.fixture
def options(tmp_path: Path) -> FeatureOptions:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    to_image(random_picture(90, 120)).save(tmp_path / "in" / "a.png")
    to_image(random_picture(130, 70, 1)).save(tmp_path / "in" / "sub" / "b.png")
    return FeatureOptions("unused", (str(tmp_path / "in"),), str(tmp_path / "out"), format="png")


def names(options: FeatureOptions) -> list[str]:
    return sorted(each.key for each in open_store(options.output).entries())


def test_a_drawing_is_what_the_explainer_gives(
    options: FeatureOptions, explainer: Explainer, capsys: pytest.CaptureFixture[str]
) -> None:
    options = replace(options, layers=("pyramid", "backbone.body.block2"), score_threshold=0.1)
    for _ in range(2):  # what is there is replaced
        assert features(options, explainer) == 0
    assert names(options) == ["a.png.features.png", "sub%2Fb.png.features.png"]
    said = capsys.readouterr().out
    assert said == f"2 layers of 2 pictures: {options.output}/*.features.png\n" * 2
    for key, name in zip(("a.png", "sub/b.png"), names(options), strict=True):
        pixels = decode_picture(Path(options.inputs[0], key).read_bytes())
        seen = feature_maps(explainer, pixels, options.layers)
        boxes = _boxes(seen.detections, explainer, ExplainRequest(score_threshold=0.1))
        found = explainer.detect([pixels])[0]
        kept = found.scores >= 0.1
        assert [each.box for each in boxes] == [tuple(box.tolist()) for box in found.boxes[kept]]
        expected = draw(Picture(key, pixels), seen, boxes, Reduction(), options)
        image = Image.open(Path(options.output, name))
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


def test_drawings_are_not_drawn_again(options: FeatureOptions, explainer: Explainer) -> None:
    options = replace(options, output=options.inputs[0], layers=("0",), format="jpg")
    expected = ["a.png", "a.png.features.jpg", "sub%2Fb.png.features.jpg", "sub/b.png"]
    for _ in range(2):
        assert features(options, explainer) == 0
        assert names(options) == expected
    (Path(options.inputs[0]) / "a.png").unlink()
    (Path(options.inputs[0]) / "sub" / "b.png").unlink()
    with pytest.raises(UsageError, match="are feature maps that were drawn before"):
        features(options, explainer)
    named = str(Path(options.inputs[0], expected[1]))
    assert features(replace(options, inputs=(named,)), explainer) == 0


def test_from_bucket_to_bucket(options: FeatureOptions, explainer: Explainer, bucket: str) -> None:
    put(bucket, {"in/a.png": Path(options.inputs[0], "a.png").read_bytes()})
    there = replace(options, inputs=(f"{bucket}/in",), output=f"{bucket}/out", layers=("0", "1"))
    assert features(replace(there, over="network", format="jpg"), explainer) == 0
    image = Image.open(io.BytesIO(open_store(f"{bucket}/out").read("a.png.features.jpg")))
    assert image.format == "JPEG"
    assert image.size[0] == 8 + 2 * (CELL + 8)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layers": ("pyramyd",)}, RequestError, "got 'pyramyd'; allowed: pyramid, 0, 1"),
        ({"layers": ("roi_heads.box_head",)}, UsageError, r"which gives \[\d+, 256\]"),
        ({"channel_reduction": "none", "topk": -1}, RequestError, "map of 48 channels"),
        ({"channel_reduction": "none", "topk": 5}, RequestError, "has 4 places.* the 5 channels"),
        (
            {
                "layers": ("pyramid", "rpn.head.bbox_pred"),
                "channel_reduction": "none",
                "topk": 49,
                "arrangement": (7, 7),
            },
            UsageError,
            "10 maps with 300 small pictures are more than the 240",
        ),
        ({"inputs": ("/no/such/place",)}, UsageError, "is not there"),
    ],
)
def test_what_cannot_be_drawn(
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    options: FeatureOptions,
    explainer: Explainer,
) -> None:
    with pytest.raises(error, match=message):
        features(replace(options, **changes), explainer)
    assert not Path(options.output).exists()


def test_the_command_with_a_broken_picture(
    demo_archive: Path, demo: Explainer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scenes = {f"{number}.jpg": encode_jpeg(to_image(scene_picture(number))) for number in range(2)}
    broken = {"2.jpg": scenes["0.jpg"][:2000], "3.png": picture_bytes(3000, 1)}
    put(str(tmp_path / "in"), {**scenes, **broken})
    command = f"features --archive {demo_archive} --input {tmp_path / 'in'}"
    asked = "--layers backbone backbone.body.block3 --format png"
    asked += " --channel-reduction none --topk 3 --arrangement 1 3"
    assert main([*command.split(), "--output", str(tmp_path / "out"), *asked.split()]) == 3
    said = capfd.readouterr()
    assert said.out == f"2 layers of 2 pictures: {tmp_path / 'out'}/*.features.png\n"
    assert [" ".join(line.split()[:3]) for line in said.err.splitlines()] == [
        "jobs: 2.jpg could",
        "jobs: 3.png could",
    ]
    options = parse([*command.split(), "--output", "out", *asked.split()])
    assert isinstance(options, FeatureOptions)
    for key, data in scenes.items():
        pixels = decode_picture(data)
        seen = feature_maps(demo, pixels, options.layers)
        boxes = _boxes(seen.detections, demo, ExplainRequest())
        expected = draw(Picture(key, pixels), seen, boxes, Reduction("none", 3, (1, 3)), options)
        image = np.asarray(Image.open(tmp_path / "out" / f"{key}.features.png"), dtype=np.int16)
        assert np.abs(image - np.asarray(expected)).max() <= 2


@pytest.mark.full
def test_the_command_names_near_layers(
    demo_archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    to_image(scene_picture(0)).save(tmp_path / "a.png")
    command = f"features --archive {demo_archive} --input {tmp_path / 'a.png'}"
    command += f" --output {tmp_path / 'out'} --layers backbone.bodi.stem"
    assert main(command.split()) == 2
    error = capfd.readouterr().err
    assert error.startswith("jobs: layer: got 'backbone.bodi.stem'; allowed: pyramid")
    assert "backbone.body.stem" in error
    assert error.count("\n") == 1

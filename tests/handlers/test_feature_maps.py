from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from handlers.detectors.layouts import Layout
from handlers.detectors.letterbox import NetworkInput
from handlers.detectors.yolo import YOLOLike
from handlers.explainer import Explainer
from handlers.feature_maps import FeatureMap, Reduction, feature_maps, normalised, on_pixels
from handlers.images import PictureError
from handlers.schema import RequestError
from handlers.tap import NonFiniteError
from tests.conftest import CATEGORIES, random_picture, small_model

PICTURE = random_picture(150, 100)  # 256 x 170 pixels, on an input of 256 x 192
SCALE = 256 / 150
STEM = "backbone.body.stem"
# Sums of 1, 5, -3, 5 and 2: channels 1 and 3 tie.
TINY = torch.tensor(
    [[[1.0, 0.0]], [[4.0, 1.0]], [[-2.0, -1.0]], [[0.0, 5.0]], [[1.0, 1.0]]]
)  # [5, 1, 2]


@pytest.mark.parametrize(
    ("reduction", "channels", "values"),
    [
        (Reduction(), [(0, 1, 2, 3, 4)], [[[0.8, 1.2]]]),
        (Reduction("select_max"), [(1,)], [[[4.0, 1.0]]]),
        (Reduction("none", 3), [(1,), (3,), (4,)], [[[4.0, 1.0]], [[0.0, 5.0]], [[1.0, 1.0]]]),
        (Reduction("none", 1, (1, 1)), [(1,)], [[[4.0, 1.0]]]),
        (Reduction("none", 9, (3, 3)), [(1,), (3,), (4,), (0,), (2,)], None),
    ],
)
def test_channels_are_reduced_as_by_hand(
    reduction: Reduction, channels: list[tuple[int, ...]], values: list[Any] | None
) -> None:
    found = reduction(TINY)
    assert [each.channels for each in found] == channels
    if values is not None:
        np.testing.assert_allclose([each.values for each in found], values, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_channels_are_reduced_as_numpy_does(seed: int) -> None:
    maps: NDArray[Any] = np.random.default_rng(seed).integers(-2, 3, (40, 3, 4))
    sums = maps.sum((1, 2))
    assert len(set(sums)) < 40  # ties
    order = sorted(range(40), key=lambda channel: (-sums[channel], channel))
    tensor = torch.from_numpy(maps).float()
    assert [each.channels for each in Reduction("none", 12, (3, 4))(tensor)] == [
        (channel,) for channel in order[:12]
    ]
    (best,) = Reduction("select_max")(tensor)
    np.testing.assert_array_equal(best.values, maps[order[0]])
    (mean,) = Reduction()(tensor)
    np.testing.assert_allclose(mean.values, maps.mean(0), atol=1e-6)


@pytest.mark.parametrize(("number", "shape"), [(1, [1, 2]), (3, [3, 1, 2])])
def test_all_channels_of_what_is_a_picture(number: int, shape: list[int]) -> None:
    (found,) = Reduction("none", -1)(TINY[:number])
    assert found.channels == tuple(range(number))
    assert list(found.values.shape) == shape
    assert torch.equal(found.values.reshape(number, 1, 2), TINY[:number])


@pytest.mark.parametrize("number", [2, 4, 5])
def test_all_channels_of_what_is_no_picture(number: int) -> None:
    with pytest.raises(RequestError, match=rf"topk: got '-1 for a map of {number} channels'"):
        Reduction("none", -1)(TINY[:number])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("none", 5, (2, 2)), "2 x 2, which has 4 places'; allowed: .* each of the 5 channels"),
        (("none", 0), "topk: got 0"),
        (("none", -2), "topk: got -2"),
        (("none", 2, (0, 2)), "arrangement"),
        (("mean",), "got 'mean'; allowed: squeeze_mean, select_max, none"),
    ],
)
def test_a_reduction_that_cannot_be(values: Sequence[Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Reduction(*values)


def test_places() -> None:
    assert Reduction("none", 3, (2, 4)).places == (2, 4)
    assert Reduction("none", -1, (2, 4)).places == Reduction(topk=9).places == (1, 1)


def test_maps_are_normalised_by_their_own_range() -> None:
    assert normalised(torch.tensor([-2.0, 0.0, 6.0])).tolist() == [0, 0.25, 1]
    assert normalised(torch.full((2,), 7.0)).tolist() == [0, 0]


def named(explainer: Explainer, *layers: str) -> dict[tuple[str, str], FeatureMap]:
    maps = feature_maps(explainer, PICTURE, layers).maps
    return {(each.layer, each.name): each for each in maps}


def test_maps_of_levels_modules_and_shared_heads(explainer: Explainer) -> None:
    model: Any = explainer.detector.model
    with torch.no_grad():
        levels = model.backbone(explainer.detector.prepare(PICTURE).tensors)
        rpn = [F.relu(model.rpn.head.conv[0][0](each)) for each in levels.values()]
        logits = [model.rpn.head.cls_logits(each) for each in rpn]
    found = named(explainer, "rpn.head.conv", "2", "pyramid", "backbone", "rpn.head")
    assert [*dict.fromkeys(layer for layer, _ in found)] == [
        *("rpn.head.conv", "2", "pyramid", "backbone", "rpn.head")
    ]
    for number, (level, expected) in enumerate(levels.items()):
        for key, maps in (
            (("pyramid", level), expected),
            (("backbone", level), expected),
            (("rpn.head.conv", f"call {number + 1}"), rpn[number]),
            (("rpn.head", f"0.{number}"), logits[number]),
        ):
            assert torch.allclose(found[key].activation, maps[0], atol=1e-5)
    assert torch.equal(found["2", ""].activation, found["pyramid", "2"].activation)
    assert len(found) == 5 + 1 + 5 + 5 + 2 * 5


def test_a_map_is_what_its_module_gave_before_a_relu_in_place(explainer: Explainer) -> None:
    found = named(explainer, STEM, f"{STEM}.0", f"{STEM}.1")
    model = explainer.detector.model
    before = found[f"{STEM}.1", ""].activation
    assert model.get_submodule(f"{STEM}.2").inplace
    with torch.no_grad():
        expected = model.get_submodule(f"{STEM}.1").eval()(found[f"{STEM}.0", ""].activation[None])
    assert torch.allclose(before, expected[0], atol=1e-5)
    assert float(before.min()) < 0
    assert torch.equal(found[STEM, ""].activation, before.clamp(min=0))


def test_the_view_holds_what_was_detected_and_seen(explainer: Explainer) -> None:
    view = feature_maps(explainer, PICTURE, ["0"])
    assert torch.equal(view.detections.boxes, explainer.detect([PICTURE])[0].boxes)
    seen = view.network_input.float()
    assert list(seen.shape) == [3, 256, 192]
    assert (int(seen.min()), int(seen.max())) == (0, 255)
    assert float(seen[:, :, 170:].std((1, 2)).max()) == 0  # the padding
    resized = F.interpolate(PICTURE[None].float(), (256, 170), mode="bilinear")[0]
    for one, other in zip(seen[:, :, :170], resized, strict=True):
        assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.99


@pytest.mark.parametrize("layer", [STEM, "backbone.body.block1", "backbone.body.block2"])
def test_a_cell_lies_on_what_it_saw(layer: str, explainer: Explainer) -> None:
    """Of a dot, near the corner beyond which there is padding."""
    x, y = 88, 131
    blank = torch.full((3, 150, 100), 90, dtype=torch.uint8)
    dot = blank.clone()
    dot[:, y - 3 : y + 4, x - 3 : x + 4] = 255
    (empty,), (seen,) = (feature_maps(explainer, each, [layer]).maps for each in (blank, dot))
    values = (seen.activation - empty.activation).abs().mean(0)
    stride = 256 / values.shape[0]
    heat = on_pixels(values, seen.geometry)
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    assert list(heat.shape) == [150, 100]
    assert np.hypot(column - x, row - y) < 3 + stride / SCALE  # it is 7 pixels wide
    heat = on_pixels(torch.stack([values] * 3), seen.input_geometry)
    row, column = divmod(int(heat[2].argmax()), heat.shape[2])
    assert list(heat.shape) == [3, 256, 192]
    assert np.hypot(column - x * SCALE, row - y * SCALE) < 5 + stride


def test_single_cells_lie_where_strided_convolutions_put_them(explainer: Explainer) -> None:
    for each in named(explainer, "pyramid").values():
        height, width = each.activation.shape[1:]
        stride, row, column = 256 // height, height // 2, width // 2
        values = torch.zeros(height, width)
        values[row, column] = 1
        heat = on_pixels(values, each.input_geometry)
        assert heat[row * stride, column * stride] == heat.max() == 1
        x, y = (int((cell * stride + 0.5) / SCALE) for cell in (column, row))
        assert on_pixels(values, each.geometry)[y, x] > 0.7


class OneMapHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.predict = nn.Conv2d(1, 4 + len(CATEGORIES), 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.predict(maps[0])]


class Blurring(nn.Module):
    """Its trunk is a blur of stride 8: what is bright in the picture is bright in its map."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *(nn.Conv2d(width, 1, 3, 2, 1, bias=False) for width in (3, 1, 1))
        )
        self.head = OneMapHead()
        for module in self.trunk:
            nn.init.constant_(module.get_parameter("weight"), 1 / 9)

    def forward(self, x: Tensor) -> Any:
        return self.head([self.trunk(x)])


@pytest.mark.parametrize("mirror", ["none", "horizontal", "both"])
@pytest.mark.parametrize("resize", ["letterbox", "corner", "stretch"])
@pytest.mark.parametrize(("height", "width"), [(60, 131), (150, 47)])
def test_a_dot_lies_on_itself_letterboxed_and_mirrored(
    mirror: str, resize: str, height: int, width: int
) -> None:
    size = NetworkInput((128, 96), resize, fill=0, mirror=mirror)
    layout = Layout(head="head", strides=(8,), input=size)
    explainer = Explainer.from_model(YOLOLike(Blurring(), layout, len(CATEGORIES)), CATEGORIES)
    (name,) = (each for each, _ in explainer.detector.model.named_modules() if each[-5:] == "trunk")
    y, x = round(0.3 * height), round(0.8 * width)
    picture = torch.zeros(3, height, width, dtype=torch.uint8)
    picture[:, y - 3 : y + 4, x - 3 : x + 4] = 255
    view = feature_maps(explainer, picture, [name])
    (seen,), frame = view.maps, explainer.detector.prepare(picture).geometries[0]
    heat = on_pixels(seen.activation[0], seen.geometry)
    on_input = on_pixels(seen.activation[0], seen.input_geometry)
    middle = (view.network_input[0] > 200).nonzero().float().mean(0)  # of the dot
    for values, expected, stride in (
        (heat, (y, x), 8 / min(abs(frame.scale_x), abs(frame.scale_y))),
        (on_input, middle.tolist(), 8),
    ):
        bright = (values >= values.max() * 0.95).nonzero().float().mean(0)
        assert np.hypot(*(bright.numpy() - expected)) < stride


def test_the_network_is_left_as_it_was_found(explainer: Explainer) -> None:
    model = explainer.detector.model
    model.train()
    model.get_submodule("backbone").eval()
    before = [each.training for each in model.modules()]
    try:
        feature_maps(explainer, PICTURE, ["pyramid", STEM])
        for picture, layer in ((PICTURE, "backbone.x"), (PICTURE.float(), STEM)):
            with pytest.raises((RequestError, PictureError)):
                feature_maps(explainer, picture, [layer])
        assert [each.training for each in model.modules()] == before
        assert all(each.requires_grad for each in model.parameters())
        assert not any(each._forward_hooks for each in model.modules())
    finally:
        model.eval()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("backbone.bdy.stem", f"got 'backbone.bdy.stem'; allowed: pyramid, 0, .*{STEM}"),
        ("backbone.body.block9", r"allowed: .*backbone\.body\.block4"),
        ("rpn.head.cov", r"rpn\.head\.conv"),
        ("", "got ''; allowed: pyramid"),
        ("roi_heads.box_head.fc6", r"fc6, which gives \[\d+, 256\]'; allowed: pyramid"),
        ("roi_heads.box_roi_pool", r"with a map for each of \d+ boxes"),
        ("roi_heads", "does not run when the detector looks at a picture"),
        ("rpn", r"rpn, which .*rpn\.head"),
    ],
)
def test_refused_layers_name_near_ones(explainer: Explainer, layer: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        feature_maps(explainer, PICTURE, ["pyramid", layer])


def test_a_map_of_the_only_box_is_none_of_the_picture(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rpn: Any = explainer.detector.model.get_submodule("rpn")
    monkeypatch.setitem(rpn._post_nms_top_n, "testing", 1)
    with pytest.raises(RequestError, match="box_roi_pool, with a map for each of 1 boxes"):
        feature_maps(explainer, PICTURE, ["roi_heads.box_roi_pool"])
    assert len(named(explainer, STEM, "rpn.head.conv")) == 1 + 5


def test_maps_that_are_not_finite(explainer: Explainer) -> None:
    norm: Any = explainer.detector.model.get_submodule(f"{STEM}.1")

    def spoil(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        return output.index_fill(1, torch.tensor([0]), -torch.inf)

    handle = norm.register_forward_hook(spoil)  # the ReLU that follows makes a zero of it
    try:
        with pytest.raises(NonFiniteError, match=rf"the map of {STEM}\.1 is not finite"):
            feature_maps(explainer, PICTURE, [f"{STEM}.1"])
        assert feature_maps(explainer, PICTURE, [STEM]).maps
    finally:
        handle.remove()


def test_a_one_stage_head_runs_once_for_each_level() -> None:
    retinanet = Explainer.from_model(small_model("retinanet_resnet50_fpn"), CATEGORIES)
    tower = "head.classification_head.conv.0"
    maps = feature_maps(retinanet, PICTURE, [tower, "pyramid"]).maps
    assert [each.name for each in maps[:5]] == [f"call {number}" for number in range(1, 6)]
    convolution = retinanet.detector.model.get_submodule(tower)
    for one, level in zip(maps[:5], maps[5:], strict=True):
        with torch.no_grad():
            expected = convolution(level.activation[None])[0]
        assert torch.allclose(one.activation, expected, atol=1e-4)

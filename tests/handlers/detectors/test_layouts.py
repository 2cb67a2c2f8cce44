from __future__ import annotations

from typing import Any

import pytest
import torch

from handlers.detectors.layouts import LAYOUTS, Layout
from handlers.detectors.letterbox import letterboxed
from handlers.detectors.registry import DetectorError

# What each family's own code does, written down once more: how it resizes, in which order of
# channels, (pixel - mean) / std, IoU of suppression.
RGB, BGR = (0, 1, 2), (2, 1, 0)
SCALED = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
FAMILIES: dict[str, tuple[str, tuple[int, ...], tuple[tuple[float, ...], ...], float]] = {
    "yolov5": ("letterbox", RGB, SCALED, 0.45),
    "yolov7": ("letterbox", RGB, SCALED, 0.45),
    "yolov8": ("letterbox", RGB, SCALED, 0.7),
    "yolov11": ("letterbox", RGB, SCALED, 0.7),
    "yolov6": ("letterbox", RGB, SCALED, 0.45),
    "yolox": ("corner", BGR, ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 0.65),
    "rtmdet": ("corner", BGR, ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395)), 0.65),
}
COLOUR = (200.0, 90.0, 10.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_are_prepared_as_the_family_does(family: str) -> None:
    resize, channels, (mean, std), iou = FAMILIES[family]
    layout = Layout.named(family, head="head", input={"size": [96, 160]})
    assert (layout.input.resize, layout.iou) == (resize, iou)
    picture = torch.tensor(COLOUR, dtype=torch.uint8).view(3, 1, 1).expand(3, 33, 80)
    inputs = letterboxed(picture, layout.input, torch.device("cpu"))
    tensors = inputs.tensors
    # 80 x 33 becomes 160 x 66; of the 30 rows left 15 are above, or all below.
    top = 15 if resize == "letterbox" else 0
    inside = torch.zeros(96, dtype=torch.bool)
    inside[top : top + 66] = True
    for place, channel in enumerate(channels):
        colour = (COLOUR[channel] - mean[place]) / std[place]
        grey = (114.0 - mean[place]) / std[place]
        assert torch.allclose(tensors[0, place, inside], torch.tensor(colour), atol=1e-4)
        assert torch.allclose(tensors[0, place, ~inside], torch.tensor(grey), atol=1e-4)
    assert inputs.geometries[0].offset_y == top
    assert inputs.geometries[0].scale_x == inputs.geometries[0].scale_y == 2


def test_odd_margins_and_plain_bilinear() -> None:
    layout = Layout.named("yolov5", head="head", input={"size": [64, 64]})
    picture = torch.zeros(3, 122, 128, dtype=torch.uint8)
    picture[:, :, ::4] = 255
    inputs = letterboxed(picture, layout.input, torch.device("cpu"))
    # 61 rows: of the 3 left round(1.5 - 0.1) = 1 is above. Halved without antialiasing, a column is
    # the mean of the two beside its middle: a white and a black one, then two black ones.
    assert inputs.geometries[0].offset_y == 1
    row = inputs.tensors[0, 0, 30]
    assert torch.allclose(row, torch.tensor([0.5, 0.0]).repeat(32), atol=1e-5)
    assert bool((inputs.tensors[0, :, [0, 62, 63]] == 114 / 255).all())


def test_the_anchors_of_the_families() -> None:
    assert LAYOUTS["yolov5"]["anchors"] == (
        ((10, 13), (16, 30), (33, 23)),
        ((30, 61), (62, 45), (59, 119)),
        ((116, 90), (156, 198), (373, 326)),
    )
    assert LAYOUTS["yolov7"]["anchors"] == (
        ((12, 16), (19, 36), (40, 28)),
        ((36, 75), (76, 55), (72, 146)),
        ((142, 110), (192, 243), (459, 401)),
    )


def test_decoded_boxes_come_from_the_head_as_it_is() -> None:
    plain = Layout.named("yolov8", head="head")
    assert (plain.training_head, plain.activated) == (True, False)
    decoded = Layout.named("yolov8", head="head", boxes="xywh")
    assert (decoded.training_head, decoded.activated) == (False, True)
    assert not Layout.named("yolov8", head="head", boxes="xywh", activated=False).activated


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"layout": "yolo"}, "layout: got 'yolo'; expected one of rtmdet, yolov11"),
        ({}, "head: missing"),
        ({"head": "h", "heads": 1}, "heads: unknown; expected activated"),
        ({"head": "h", "boxes": "ltrb"}, "boxes: got 'ltrb'; expected yolov5, yolox"),
        ({"head": "h", "unit": "cm"}, "unit: got 'cm'"),
        ({"head": "h", "order": ["boxes"]}, "order: got"),
        ({"head": "h", "strides": [0]}, "strides: got"),
        ({"head": "h", "strides": [16, 16]}, "each once, the finest first"),
        ({"head": 5}, "head: got 5; expected a module's name"),
        ({"head": "h", "strides": 5}, "strides: got 5; expected a list of whole pixels"),
        ({"head": "h", "bins": "16"}, "bins: got '16'; expected a whole number from 1 to 1000"),
        ({"head": "h", "activated": "no"}, "activated: got 'no'; expected true or false"),
        ({"head": "h", "score": float("nan")}, "score: got nan; expected a number from 0 to 1"),
        ({"head": "h", "iou": None}, "iou: got None"),
        ({"head": "h", "detections": 1.5}, "detections: got 1.5"),
        ({"head": "h", "strongest": -1}, "strongest: got -1"),
        ({"head": "h", "middle": float("inf")}, "middle: got inf"),
        ({"head": "h", "anchors": [["a", "b"]]}, "anchors: got"),
        ({"head": "h", "cls": 1}, "cls: unknown"),
        ({"head": "h", "input": {"fill": "x"}}, "input fill: got 'x'"),
        ({"head": "h", "input": {"std": [0, 1, 1]}}, "input std: got"),
        ({"head": "h", "input": {"mean": {"r": 1}}}, "input mean: got"),
        ({"head": "h", "input": {"size": [32000000000, 32]}}, "at most 16384"),
        ({"head": "h", "boxes": "yolov5"}, "anchors: missing"),
        ({"layout": "yolov5", "head": "h", "anchors": [[[1, 2]]]}, "anchors: got .1. for 3"),
        ({"head": "h", "input": {"size": [100, 100]}}, "multiples of the strides"),
        ({"head": "h", "input": {"sizes": 3}}, "input sizes: unknown"),
        ({"head": "h", "input": {"resize": "crop"}}, "input resize: got 'crop'"),
        (
            {"head": "h", "input": {"size": 640}},
            "input size: got 640; expected .height, width. in pixels",
        ),
        ({"head": "h", "input": 640}, "input: got 640; expected a table"),
    ],
)
def test_a_layout_that_makes_no_sense(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(DetectorError, match=text):
        Layout.named(**{"layout": "yolov8", **fields})

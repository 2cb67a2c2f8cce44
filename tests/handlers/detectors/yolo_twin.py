"""YOLO-like detectors a second time: plain loops over cells, formulas as the papers write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from handlers.detectors.layouts import LAYOUTS
from tests.handlers.detectors.yolo_networks import (
    STRIDES,
    CoupledHead,
    DecodingHead,
    DecoupledHead,
    FlatHead,
    Network,
    SplitFlatHead,
)

CLASSES = 3
LAST = ("m", "predict", "classes", "boxes")  # layers of heads
SIZE = (128, 160)
BINS = 16
# [outputs, level, row, column, anchor] -> boxes' numbers, objectness (or none), classes.
Read = Callable[[Any, int, int, int, int], tuple[Tensor, Tensor | None, Tensor]]


@dataclass(frozen=True)
class Case:
    """A layout, a network that has it, and where each cell's numbers are in its outputs."""

    layout: str
    head: Callable[[], nn.Module]
    read: Read
    fields: dict[str, Any]
    anchors: int = 1
    activated: bool = False


def _coupled(raw: Any, level: int, row: int, column: int, anchor: int) -> Any:
    numbers = raw[1][level][0, anchor, row, column]
    return numbers[:4], numbers[4], numbers[5:]


def _joined(raw: Any, level: int, row: int, column: int, anchor: int) -> Any:
    numbers = raw[1][level][0, :, row, column]
    return numbers[: 4 * BINS], None, numbers[4 * BINS :]


def _apart(raw: Any, level: int, row: int, column: int, anchor: int) -> Any:
    classes, boxes = raw
    return boxes[level][0, :, row, column], None, classes[level][0, :, row, column]


def _flat(raw: Any, level: int, row: int, column: int, anchor: int) -> Any:
    sizes = [(SIZE[0] // stride, SIZE[1] // stride) for stride in STRIDES]
    before = sum(height * width for height, width in sizes[:level])
    numbers = raw[0, before + row * sizes[level][1] + column]
    return numbers[:4], numbers[4], numbers[5:]


def _split(raw: Any, level: int, row: int, column: int, anchor: int) -> Any:
    boxes, _, classes = _flat(raw, level, row, column, anchor)
    return boxes, None, classes


CASES = {
    "yolov5": Case("yolov5", lambda: CoupledHead(5 + CLASSES, 3), _coupled, {}, anchors=3),
    "yolov7": Case(
        "yolov7", lambda: CoupledHead(5 + CLASSES, 3), _coupled, {"training_head": True}, anchors=3
    ),
    "yolov8": Case("yolov8", lambda: DecoupledHead([4 * BINS, CLASSES], joined=True), _joined, {}),
    "yolov11": Case(
        "yolov11",
        lambda: DecoupledHead([4 * BINS, CLASSES], joined=True),
        _joined,
        {"training_head": False},
    ),
    "yolov6": Case("yolov6", lambda: SplitFlatHead(CLASSES), _split, {}, activated=True),
    "rtmdet": Case("rtmdet", lambda: DecoupledHead([CLASSES, 4], positive=1), _apart, {}),
    "yolox": Case("yolox", lambda: FlatHead(CLASSES), _flat, {}, activated=True),
    "decoded": Case(
        "yolox", lambda: DecodingHead(CLASSES), _flat, {"boxes": "xywh"}, activated=True
    ),
}


def network_of(case: Case) -> Network:
    """With weights that spread scores and boxes."""
    torch.manual_seed(11)
    network = Network(case.head())
    with torch.no_grad():
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        network(torch.rand(4, 3, *SIZE))
        for name, parameter in network.head.named_parameters():
            last = name.endswith(".1.weight") or name.split(".")[0] in LAST
            if last and parameter.dim() == 4:
                parameter.mul_(3.0)
    return network.eval()


@dataclass(frozen=True)
class Cell:
    """One candidate: its box on the (unmirrored) canvas, logits and score by label; in a graph."""

    place: tuple[int, int, int, int]
    box: Tensor
    logits: Tensor
    objectness: Tensor | None
    scores: Tensor


def cells(case: Case, raw: Any) -> list[Cell]:
    """Every candidate, in the order level, row, column, anchor."""
    found = []
    for level, stride in enumerate(STRIDES):
        for row in range(SIZE[0] // stride):
            for column in range(SIZE[1] // stride):
                for anchor in range(case.anchors):
                    numbers, objectness, classes = case.read(raw, level, row, column, anchor)
                    if case.activated:
                        if objectness is not None:
                            objectness = (objectness / (1 - objectness)).log()
                        classes = (classes / (1 - classes)).log()
                    scores = classes.sigmoid()
                    if objectness is not None:
                        scores = scores * objectness.sigmoid()
                    place = (level, row, column, anchor)
                    found.append(
                        Cell(place, _box(case, numbers, place), classes, objectness, scores)
                    )
    return found


def _box(case: Case, numbers: Tensor, place: tuple[int, int, int, int]) -> Tensor:
    level, row, column, anchor = place
    stride = STRIDES[level]
    if case.fields.get("boxes") == "xywh":
        x, y, width, height = numbers
    elif case.layout in ("yolov5", "yolov7"):
        s = numbers.sigmoid()
        pair = LAYOUTS[case.layout]["anchors"][level][anchor]
        x, y = (2 * s[0] - 0.5 + column) * stride, (2 * s[1] - 0.5 + row) * stride
        width, height = (2 * s[2]) ** 2 * pair[0], (2 * s[3]) ** 2 * pair[1]
    elif case.layout == "yolox":
        x, y = (numbers[0] + column) * stride, (numbers[1] + row) * stride
        width, height = numbers[2].exp() * stride, numbers[3].exp() * stride
    else:
        if case.layout in ("yolov8", "yolov11"):
            bins = torch.arange(BINS).float()
            numbers = torch.stack([side.softmax(0) @ bins for side in numbers.view(4, BINS)])
        unit = 1 if case.layout == "rtmdet" else stride
        middle = 0.0 if case.layout == "rtmdet" else 0.5
        left, top, right, bottom = numbers * unit
        x, y = (column + middle) * stride, (row + middle) * stride
        return torch.stack([x - left, y - top, x + right, y + bottom])
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def reported(
    found: list[Cell], score: float, iou: float, most: int, every_label: bool
) -> list[tuple[int, int]]:
    """(candidate, label) of the detections, best first."""
    entries = []
    for candidate, cell in enumerate(found):
        labels = range(CLASSES) if every_label else [int(cell.scores.argmax())]
        entries += [(candidate, label) for label in labels if cell.scores[label] > score]
    kept: list[tuple[int, int]] = []
    for label in range(CLASSES):
        own = [entry for entry in entries if entry[1] == label]
        if own:
            boxes = torch.stack([found[candidate].box for candidate, _ in own])
            scores = torch.stack([found[candidate].scores[label] for candidate, _ in own])
            kept += [own[place] for place in nms(boxes, scores, iou).tolist()]
    kept.sort(key=lambda entry: -found[entry[0]].scores[entry[1]].item())
    return kept[:most]

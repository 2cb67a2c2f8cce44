"""From whatever a YOLO-like head returns to numbers by cell: matched by shape, not by guess."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.detectors.layouts import DECODED, Layout
from handlers.detectors.registry import DetectorError

Sizes = Sequence[tuple[int, int]]
# Takes one group's tensors out of a list: its numbers on each level; None if it is not there.
Reader = Callable[[list[Tensor], int, "Expected"], list[Tensor] | None]


@dataclass(frozen=True)
class Expected:
    """What the head should give. sizes: (height, width) of each feature map."""

    layout: Layout
    num_classes: int
    sizes: Sizes

    @property
    def channels(self) -> dict[str, int]:
        """Numbers of each group."""
        return self.layout.channels(self.num_classes)

    @property
    def cells(self) -> list[int]:
        """Candidates of each feature map."""
        return [height * width * self.layout.per_cell for height, width in self.sizes]


def by_cell(output: object, expected: Expected) -> list[dict[str, Tensor]]:
    """For each feature map its groups' numbers, [B, h * w * A, *] each: cell by cell, a cell's
    anchors side by side.

    `output` may be tensors in lists, tuples and dicts, with others between them. Understood are,
    for C numbers of all groups or of each group by itself: a map [B, A * C, h, w] or
    [B, A, h, w, C] for each level, or one [B, R, C] or [B, C, R] for all R candidates of all levels
    (anchor by anchor within a level, as YOLOv5 has them). Raises DetectorError, with both shapes,
    for anything else.
    """
    given = tensors_in(output)
    joined = sum(expected.channels.values())
    # A head that gives decoded boxes in one tensor often gives its raw maps beside them.
    decoded_boxes = expected.layout.boxes in DECODED
    for groups in ({"joined": joined}, expected.channels):
        for read in (_flat, _maps) if decoded_boxes else (_maps, _flat):
            found = _taken(given, groups, expected, read)
            if found is not None:
                return [_split(level, expected.channels) for level in found]
    raise DetectorError(
        "the head's output does not fit its layout:"
        f" expected {_wanted(expected)}; got {_shapes(given)}. Check layout, strides, anchors, bins"
        f" and the number of categories{_hint(given, expected)}"
    )


def _hint(given: Sequence[Tensor], expected: Expected) -> str:
    plain = [4 + expected.num_classes, 5 + expected.num_classes]
    flat = any(each.dim() == 3 and set(each.shape[1:]) & set(plain) for each in given)
    if not flat or expected.layout.boxes in DECODED:
        return ""
    return (
        ". One tensor looks decoded already: write boxes: xywh (or xyxy), and its order of boxes,"
        " objectness if there is one, and classes"
    )


def tensors_in(output: object) -> list[Tensor]:
    """All tensors of nested lists, tuples and dicts, in order."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [each for value in output.values() for each in tensors_in(value)]
    if isinstance(output, (list, tuple)):
        return [each for value in output for each in tensors_in(value)]
    return []


def _taken(
    given: Sequence[Tensor], groups: Mapping[str, int], expected: Expected, read: Reader
) -> list[dict[str, Tensor]] | None:
    """The groups on each level, each tensor used once; None if one is missing."""
    left = list(given)
    levels: list[dict[str, Tensor]] = [{} for _ in expected.sizes]
    for name, channels in groups.items():
        found = read(left, channels, expected)
        if found is None:
            return None
        for level, each in zip(levels, found, strict=True):
            level[name] = each
    return levels


def _maps(left: list[Tensor], channels: int, expected: Expected) -> list[Tensor] | None:
    anchors = expected.layout.per_cell
    found = []
    for height, width in expected.sizes:
        for place, each in enumerate(left):
            shape = tuple(each.shape[1:])
            if shape == (anchors * channels, height, width):
                each = each.unflatten(1, (anchors, channels)).permute(0, 3, 4, 1, 2)
            elif shape == (anchors, height, width, channels):
                each = each.permute(0, 2, 3, 1, 4)
            else:
                continue
            found.append(each.reshape(len(each), -1, channels))
            del left[place]
            break
        else:
            return None
    return found


def _flat(left: list[Tensor], channels: int, expected: Expected) -> list[Tensor] | None:
    number, anchors = sum(expected.cells), expected.layout.per_cell
    for place, each in enumerate(left):
        if tuple(each.shape[1:]) == (channels, number):
            each = each.transpose(1, 2)
        elif tuple(each.shape[1:]) != (number, channels):
            continue
        del left[place]
        levels = each.split(expected.cells, 1)
        return [level.unflatten(1, (anchors, -1)).transpose(1, 2).flatten(1, 2) for level in levels]
    return None


def _split(level: Mapping[str, Tensor], channels: Mapping[str, int]) -> dict[str, Tensor]:
    if "joined" not in level:
        return dict(level)
    return dict(zip(channels, level["joined"].split([*channels.values()], -1), strict=True))


def _wanted(expected: Expected) -> str:
    anchors, channels = expected.layout.per_cell, expected.channels
    parts = " + ".join(f"{number} {name}" for name, number in channels.items())
    times = f"{anchors} x ({parts})" if anchors > 1 else parts
    total = anchors * sum(channels.values())
    maps = ", ".join(f"[B, {total}, {height}, {width}]" for height, width in expected.sizes)
    flat = f"[B, {sum(expected.cells)}, {sum(channels.values())}]"
    return f"{maps} ({times} for {expected.num_classes} categories), or {flat}, or each group apart"


def _shapes(given: Sequence[Tensor]) -> str:
    shapes = [f"[{', '.join(map(str, each.shape))}]" for each in given[:12]]
    return ", ".join([*shapes, *(["..."] if len(given) > 12 else [])]) or "no tensor"


def logits_of(values: Tensor, activated: bool) -> Tensor:
    """The logits of a group's numbers; those of probabilities are kept finite."""
    if not activated:
        return values
    smallest = torch.finfo(values.dtype).eps
    return torch.logit(values, eps=smallest)


def decoded(numbers: Tensor, anchors: Tensor, strides: Tensor, layout: Layout) -> Tensor:
    """Boxes [N, 4], x1, y1, x2, y2 in pixels of the network input.

    numbers: [N, *] of the group "boxes". anchors: [N, 4], boxes of the anchors' size around the
    middles of their cells. strides: [N], pixels to a cell.
    """
    if layout.boxes == "xyxy":
        return numbers
    if layout.boxes == "xywh":
        return _around(numbers[:, :2], numbers[:, 2:])
    middles = (anchors[:, :2] + anchors[:, 2:]) / 2
    step = strides[:, None].to(numbers)
    if layout.boxes == "yolov5":
        shares = numbers.sigmoid() * 2
        sizes = anchors[:, 2:] - anchors[:, :2]
        # Measured from the cell's upper left corner: 2 s - 0.5 is 2 s - 1 from its middle.
        return _around(middles + (shares[:, :2] - 1) * step, shares[:, 2:] ** 2 * sizes)
    origin = middles + (layout.middle - 0.5) * step
    if layout.boxes == "yolox":
        return _around(origin + numbers[:, :2] * step, numbers[:, 2:].exp() * step)
    if layout.boxes == "distribution":
        share = numbers.unflatten(1, (4, layout.bins)).softmax(-1)
        numbers = share @ torch.arange(layout.bins).to(share)
    distances = numbers * (step if layout.unit == "stride" else 1)
    return torch.cat([origin - distances[:, :2], origin + distances[:, 2:]], 1)


def _around(middles: Tensor, sizes: Tensor) -> Tensor:
    return torch.cat([middles - sizes / 2, middles + sizes / 2], 1)

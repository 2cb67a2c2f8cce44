"""YOLO-like detectors of any code: YOLOv5 to v11, YOLOX, YOLOv6, RTMDet, described by a Layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor, nn

from handlers.detectors.base import Candidates, Entries, Features, Inputs, Limits, Raw
from handlers.detectors.canvas import CanvasDetector
from handlers.detectors.dense import Heads, pairs
from handlers.detectors.head_output import (
    Expected,
    by_cell,
    decoded,
    logits_of,
)
from handlers.detectors.head_probe import (
    reaches_of,
    why_no_backbone_gradient,
    why_no_gradient,
    windows_agree,
)
from handlers.detectors.layouts import DECODED, Layout
from handlers.detectors.letterbox import unmirrored_boxes
from handlers.detectors.registry import ADAPTERS, DetectorError, class_path
from handlers.detectors.selection import strongest
from handlers.detectors.split import SplitNetwork
from handlers.detectors.torchvision_base import convolutions
from handlers.tap import undisturbed

# Boxes this many times as large as the canvas are no boxes.
FAR = 8


class YOLOLike(nn.Module):
    """A network and where in its output boxes and scores are.

    network: any module [B, 3, h, w] -> output; TorchScript, too. num_classes: how many categories
    it tells apart; there is no background.
    """

    def __init__(self, network: nn.Module, layout: Layout, num_classes: int) -> None:
        super().__init__()
        self.network = network
        self.layout = layout
        self.num_classes = num_classes

    def forward(self, tensors: Tensor) -> Any:
        """What the network gives."""
        return self.network(tensors)

    def state_dict(self, *arguments: Any, **keywords: Any) -> Any:
        """The network's own, so that its weights load as they are."""
        return self.network.state_dict(*arguments, **keywords)

    def load_state_dict(self, *arguments: Any, **keywords: Any) -> Any:
        """Into the network."""
        return self.network.load_state_dict(*arguments, **keywords)


@ADAPTERS.register(class_path(YOLOLike))
class YOLODetector(CanvasDetector):
    """The four verbs by the layout.

    Raises DetectorError, with what was expected and what came, if the layout does not fit.
    """

    together = True
    # Its heads are a few small convolutions, so that a gradient is a dot (docs/methods.md).
    defaults: Mapping[str, Any] = {"smooth": 0.2}

    def __init__(self, model: YOLOLike) -> None:
        super().__init__(model.network)
        self.layout = model.layout
        self.classes = model.num_classes
        self.split = SplitNetwork(model.network, model.layout)
        self.input, self.strides = self.layout.input, self.layout.strides
        if "objectness" in self.layout.order:
            self.extra_outputs = ("objectness",)
        self.reaches: list[int | None] = [None for _ in self.layout.strides]
        self.lost: Mapping[str, str] = {}  # groups without a gradient, and why
        with undisturbed(self.model):
            self._probe()

    def _probe(self) -> None:
        inputs = self.sample()
        with torch.enable_grad():
            shown = self.split.features(inputs.tensors.requires_grad_())
        self.no_backbone_gradient = why_no_backbone_gradient(shown, self.split.scripted)
        shown = [each.detach() for each in shown]
        self._check_maps(shown)
        # Of a blank picture maps may be all zero.
        generator = torch.Generator().manual_seed(0)
        maps = [torch.randn(each.shape, generator=generator).to(each) for each in shown]
        with torch.no_grad():
            groups = self._groups(maps)
            self._check_scores(groups)
            if self.layout.boxes not in DECODED:
                self._check_boxes(inputs, shown)
        self.lost = why_no_gradient(self._groups, maps, self.split.scripted)
        self.no_gradient = _by_output(self.lost)
        if self.layout.boxes in DECODED or self.lost:
            return
        heads = self._named(groups)
        for level, reach in enumerate(reaches_of(self._groups, maps, groups)):
            own = maps[level]

            def on_window(window: Tensor, level: int = level) -> Heads:
                return self.head_beside(window, level, maps)

            if reach is not None and windows_agree(
                on_window, heads[level], own, reach, self.convolutions(level)
            ):
                self.reaches[level] = reach

    def _check_scores(self, groups: Sequence[Mapping[str, Tensor]]) -> None:
        """Scores that went through a sigmoid lie from 0 to 1; raw ones hardly all do."""
        scores = torch.cat([each["classes"].flatten() for each in groups])
        if "objectness" in groups[0]:
            scores = torch.cat([scores, *(each["objectness"].flatten() for each in groups)])
        if bool((scores == scores[0]).all()):
            return  # of a head with nothing in it
        within = bool(((scores >= 0) & (scores <= 1)).all())
        if within != self.layout.activated:
            what = "all lie" if within else "do not all lie"
            raise DetectorError(
                f"activated: {str(self.layout.activated).lower()} does not fit: the head's scores"
                f" {what} from 0 to 1 ({float(scores.min()):.3g} to {float(scores.max()):.3g})."
                + (" If its boxes are decoded, too, write boxes: xywh" if within else "")
            )

    def _check_boxes(self, inputs: Inputs, maps: Sequence[Tensor]) -> None:
        """Boxes that are decoded once more end up far off the canvas."""
        features = Features(inputs, dict(zip(self.level_names(), maps, strict=True)))
        boxes = self.score(features, self.propose(features))[0].boxes[:, 0]
        sides = (boxes[:, 2:] - boxes[:, :2]).amax(1)
        most = FAR * max(self.layout.input.size)
        if not bool(sides.median() <= most):
            raise DetectorError(
                f"boxes: coded as {self.layout.boxes} the median box of a blank picture is"
                f" {float(sides.median()):.3g} pixels wide or high. Check boxes and unit; if they"
                " are decoded already, write boxes: xywh (or xyxy)"
            )

    def _check_maps(self, maps: Sequence[Tensor]) -> None:
        expected = self.layout.map_sizes()
        got = [tuple(each.shape[-2:]) for each in maps]
        if got != expected:
            height, width = self.layout.input.size
            raise DetectorError(
                f"strides: {list(self.layout.strides)} at {height} x {width} pixels mean maps of"
                f" {_sizes(expected)}; the head {self.layout.head} gets {_sizes(got)}"
            )

    def maps(self, tensors: Tensor) -> Sequence[Tensor]:
        return self.split.features(tensors)

    def anchor_sizes(self) -> Sequence[Sequence[Sequence[float]]]:
        return self.layout.anchors or super().anchor_sizes()

    def _groups(self, maps: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        sizes = [(each.shape[-2], each.shape[-1]) for each in maps]
        expected = Expected(self.layout, self.classes, sizes)
        groups = by_cell(self.split.head(maps), expected)
        return [
            {name: each.detach() if name in self.lost else each for name, each in level.items()}
            for level in groups
        ]

    def heads(self, maps: Sequence[Tensor]) -> list[Heads]:
        return self._named(self._groups(maps))

    def _named(self, levels: Sequence[Mapping[str, Tensor]]) -> list[Heads]:
        """The groups' numbers on each level as DenseDetector names them."""
        activated = self.layout.activated
        results: list[Heads] = []
        for groups in levels:
            heads = {
                "logits": logits_of(groups["classes"], activated),
                "regression": groups["boxes"],
            }
            if "objectness" in groups:
                heads["objectness"] = logits_of(groups["objectness"], activated)
            results.append(heads)
        return results

    def head_beside(self, maps: Tensor, level: int, others: Sequence[Tensor]) -> Heads:
        """A head that takes all maps gets, with a window of one, next to nothing of the others."""
        if maps.shape == others[level].shape:
            every = [*others]
        else:
            # Sizes of their own, so that each level's output is told by its size.
            sides = islice((side for side in count(1) if side != maps.shape[-1]), len(others))
            every = [
                maps.new_zeros(len(maps), each.shape[1], side, side)
                for each, side in zip(others, sides, strict=True)
            ]
        every[level] = maps
        return self.heads(every)[level]

    def probabilities(self, heads: Heads) -> Tensor:
        scores = heads["logits"].sigmoid()
        return scores * heads["objectness"].sigmoid() if "objectness" in heads else scores

    def decode(self, regression: Tensor, anchors: Tensor, level: Tensor) -> Tensor:
        strides = torch.tensor(self.layout.strides).to(level)[level]
        boxes = decoded(regression, anchors, strides, self.layout)
        return unmirrored_boxes(boxes, self.layout.input)

    def reach(self, level: int) -> int | None:
        return self.reaches[level]

    def convolutions(self, level: int) -> list[nn.Module]:
        return convolutions([self.split.module] if self.split.module else [])

    def entries(self, raw: Raw, candidates: Candidates) -> Entries:
        layout = self.layout
        if layout.every_label:
            return pairs(raw, strongest(raw.scores.flatten(), layout.score, layout.strongest))
        scores, labels = raw.scores.max(1)
        places = strongest(scores, layout.score, layout.strongest)
        return pairs(raw, places * self.classes + labels[places])

    def limits(self) -> Limits:
        layout = self.layout
        return Limits(
            score=layout.score,
            iou=layout.iou,
            detections=layout.detections,
            strongest=layout.strongest,
            strongest_of="picture",
            best_label=not layout.every_label,
        )

    def num_classes(self) -> int:
        return self.classes


def _by_output(lost: Mapping[str, str]) -> dict[str, str]:
    """Why outputs have no gradient, from why groups of the head's numbers have none."""
    found = {}
    if "boxes" in lost:
        found["boxes"] = lost["boxes"]
    if "objectness" in lost:
        found["objectness"] = lost["objectness"]
    if "classes" in lost:
        found["logits"] = found["scores"] = lost["classes"]
    return found


def _sizes(sizes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(" x ".join(map(str, size)) for size in sizes)

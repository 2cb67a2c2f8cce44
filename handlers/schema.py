"""What a request may ask and what an answer holds.

These frozen dataclasses are the one vocabulary of the endpoint, the jobs and Python scripts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from handlers.fields import (
    Box,
    Choice,
    Number,
    RequestError,
    Text,
    Truth,
    Whole,
    check_options,
    option,
    parse_option,
)
from handlers.images import Geometry

if TYPE_CHECKING:
    from handlers.targets.registry import CallableTarget

__all__ = [
    "ABLATIONS",
    "EMITTING",
    "SHAPES",
    "Detections",
    "ExplainRequest",
    "Explanation",
    "RequestError",
]

# The layer that is explained unless another is named: the feature map that emitted the box.
EMITTING = "emitting"
# How AblationCAM removes channels.
ABLATIONS = ("fixed", "tutorial")
# Fields that change any method's map, and are chosen together with the default one.
SHAPES = ("smooth", "center_prior", "shared")


@dataclass(frozen=True)
class ExplainRequest:
    """What to explain, and how.

    method: a name of `handlers.cam.registry`, e.g. "odam", "gradcam".
    target: which output of the detector is explained, e.g. "class" (the logit before softmax), a
        name of `handlers.targets`; or any function of an `Outputs` that gives a tensor: with one
        element it is explained by one map for the picture, with [N] by one for each box. It gets
        all that was reported, or with `box` and `candidates` those candidates.
    layer: None or "emitting" for the feature map that emitted the box; "roi" for its pooled
        features; "pyramid" for all maps together; "C2", "C3", "C4" or "C5" for the backbone's stage
        of stride 4, 8, 16 or 32; or a module by its name in `named_modules()`.
        Several, with commas between them, give an explanation each.
    fuse: of several layers give one explanation: the mean of their maps, each divided by its
        maximum, on the finest of their grids.
    category: explain only boxes of this category; None for all.
    score_threshold: boxes scoring less are not explained, 0 ... 1; None for what suits the
        detector: 0.5, or 0 for a classifier.
    max_detections: at most this many boxes of a picture are explained, best first, at least 1; None
        for what suits the detector: 100, or the best class of a classifier.
    box: x1, y1, x2, y2 in picture pixels: explain the candidate nearest to it instead, reported or
        not, and say why it was dropped. With `category` the candidate for that category.
    candidates: explain so many of the strongest candidates before suppression instead, whatever
        they score; 0 for none.
    sum_boxes: one explanation for all chosen boxes together: of the sum of their targets.
    shared: an explanation for each box at the cost of a few: boxes whose `center_prior`, which is
        to be above 0, do not overlap have one map together, of the sum of their targets, of which
        each cuts out its own.
    save_raw: keep activation and gradient in each explanation (large).
    normalize_in_box: pictures show each map inside its box alone, from its least value there (0) to
        its largest (1); where boxes overlap the larger value. The map itself stays as it is.
    smooth: blurs each map, after any fusion, by a Gaussian whose standard deviation is this share,
        0 to 1, of the side of its box (the square root of its area; of boxes together the mean).
    center_prior: weighs each map, after any blur, by a Gaussian at the middle of its box whose
        standard deviations are this share, 0 to 1, of the box's sides; 0 for none. What lies far
        from the middle of the box then does not show, whatever it does.
    ablation: how AblationCAM removes a channel: "fixed" sets it to zero and scores the same
        candidate; "tutorial" is what pytorch-grad-cam's tutorial on Faster R-CNN does.
    channels: the share of the channels, above 0 to 1, that AblationCAM removes from each end of
        the tutorial's order, so twice as many: those with the most and those with the least of
        their activation where EigenCAM shows anything; the others weigh nothing. 1 for all.
    masks: how many masked pictures D-RISE and D-CLOSE look at, 1 to 100000; None for what each
        method's paper has.
    seed: what their random masks are drawn from, 0 to 2^63 - 1.
    """

    method: str = option(Text(), "odam")
    target: str | CallableTarget = option(Text(functions=True), "class")
    layer: str | None = option(Text(), None, nullable=True)
    fuse: bool = option(Truth(), False)
    category: str | None = option(Text(), None, nullable=True)
    score_threshold: float | None = option(Number(0, 1), None, nullable=True)
    max_detections: int | None = option(Whole(1, 10_000), None, nullable=True)
    box: tuple[float, float, float, float] | None = option(Box(), None, nullable=True)
    candidates: int = option(Whole(0, 10_000), 0)
    sum_boxes: bool = option(Truth(), False)
    shared: bool = option(Truth(), False)
    save_raw: bool = option(Truth(), False)
    normalize_in_box: bool = option(Truth(), False)
    smooth: float = option(Number(0, 1), 0.0)
    center_prior: float = option(Number(0, 1), 0.0)
    ablation: str = option(Choice(ABLATIONS), "fixed")
    channels: float = option(Number(0, 1, above=True), 1.0)
    masks: int | None = option(Whole(1, 100_000), None, nullable=True)
    seed: int = option(Whole(0, 2**63 - 1), 0)

    def __post_init__(self) -> None:
        check_options(self)
        if self.box is not None and self.candidates:  # a box is a candidate already
            raise RequestError("candidates", self.candidates, "0 where a box is named")
        if self.shared and not self.center_prior:
            raise RequestError("shared", True, "false, or center_prior above 0")
        if self.shared and self.sum_boxes:
            raise RequestError("shared", True, "false with sum_boxes")
        if self.fuse and self.save_raw:
            raise RequestError("save_raw", True, "false with fuse: fused maps have no gradient")

    @property
    def layers(self) -> tuple[str, ...]:
        """The names in `layer`, each once, at least one."""
        names = [name.strip() for name in (self.layer or EMITTING).split(",")]
        return tuple(dict.fromkeys(name for name in names if name)) or ("",)

    @property
    def target_name(self) -> str:
        """The target as explanations name it."""
        if isinstance(self.target, str):
            return self.target
        return str(getattr(self.target, "__name__", type(self.target).__name__))

    @classmethod
    def from_fields(
        cls, values: Mapping[str, Any], defaults: ExplainRequest | None = None
    ) -> ExplainRequest:
        """A request from text or JSON values, on top of `defaults`; of these a method that is named
        takes what shapes its map (SHAPES) from none, so that it is the method's own.

        Raises RequestError for an unknown field and for a value of the wrong type or range.
        """
        parsed = {name: parse_option(cls, name, value) for name, value in values.items()}
        reset = SHAPES if "method" in parsed else ()
        if parsed.get("sum_boxes") or parsed.get("center_prior") == 0:
            reset = (*reset, "shared")  # which goes with neither
        plain = {name: getattr(cls, name) for name in reset}
        return replace(defaults or cls(), **(plain | parsed))


@dataclass(frozen=True)
class Detections:
    """One picture's detections, in the order and with the values of the stock torchvision model.

    boxes: float32 [N, 4], x1, y1, x2, y2 in picture pixels.
    labels: int64 [N], index into the detector's categories.
    scores: float32 [N], 0 ... 1, descending.
    candidate: int64 [N], the candidate (proposal or anchor) that emitted each detection.
    level: for each detection the name of the feature map that emitted its class and edges.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    candidate: Tensor
    level: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.level)


@dataclass(frozen=True)
class Explanation:
    """Why the detector drew one box.

    index: the detection's place among all detections of its picture (before any threshold); of a
        candidate, its place among those explained.
    box: x1, y1, x2, y2 in picture pixels; of several boxes together the smallest box around them.
    level: the feature map that emitted what is explained.
    heatmap: float32 [h, w] on the layer's own grid (cells of padding included), on the CPU,
        non-negative, not normalised.
    geometry: places the heatmap's grid on the picture.
    outcome: "reported", or why a candidate was not.
    suppressed_by: of a suppressed candidate the box that did it, if that was reported: its place
        among all detections of the picture.
    together: the indices of all boxes that this explanation is of, where there are several.
    in_box: pictures show it inside the box alone; of several boxes together inside `boxes`.
    boxes: of several boxes together where each of them stands, as `box`; else none.
    activation, gradient: float32 [C, h, w] where the request asked to keep them, else None.
    """

    index: int
    box: tuple[float, float, float, float]
    label: int
    category: str
    score: float
    method: str
    target: str
    layer: str
    level: str
    heatmap: Tensor = field(repr=False)
    geometry: Geometry = field(repr=False)
    outcome: str = "reported"
    suppressed_by: int | None = None
    together: tuple[int, ...] = ()
    in_box: bool = False
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    activation: Tensor | None = field(default=None, repr=False)
    gradient: Tensor | None = field(default=None, repr=False)

    def on_picture(self) -> Tensor:
        """The heatmap on the picture's pixels: float32 [H, W], bilinear, not normalised."""
        return self.geometry.to_picture(self.heatmap)

    def normalised(self) -> Tensor:
        """As pictures show it: float32 [H, W], 0 ... 1.

        `on_picture` divided by its maximum (all zero stays zero). With `in_box` zero outside the
        box, and inside it from its least value there (0) to its largest (1); all zero if it is flat
        there. The box is widened to whole pixels; of boxes explained together each counts for
        itself, and where they overlap the larger value.
        So the renormalize_cam_in_bounding_boxes of pytorch-grad-cam's tutorial and MMYOLO's
        norm_in_bbox are described. But they hand a box's pixels to scale_cam_image as if they were
        a batch, which stretches each row of pixels by itself; they cut boxes' edges to integers,
        and stretch the whole once more, which matters only where boxes leave no pixel at 0.
        """
        heat = self.on_picture()
        if self.in_box:
            return self._inside(heat)
        maximum = heat.max()
        return heat / maximum if maximum > 0 else torch.zeros_like(heat)

    def _inside(self, heat: Tensor) -> Tensor:
        shown = torch.zeros_like(heat)
        for box in self.boxes or (self.box,):
            (left, right), (top, bottom) = (
                _pixels(box[axis], box[axis + 2], heat.shape[1 - axis]) for axis in (0, 1)
            )
            inside = heat[top:bottom, left:right]
            low, high = inside.aminmax()
            if high > low:
                own = shown[top:bottom, left:right]
                own.copy_(torch.maximum(own, (inside - low) / (high - low)))
        return shown


def _pixels(first: float, last: float, side: int) -> tuple[int, int]:
    """The whole pixels of `side` that first ... last touches, at least one."""
    start = min(max(math.floor(first), 0), side - 1)
    return start, min(max(math.ceil(last), start + 1), side)

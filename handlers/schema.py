"""What a request may ask and what an answer holds.

These frozen dataclasses are the one vocabulary of the endpoint, the jobs and Python scripts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from handlers.images import Geometry

if TYPE_CHECKING:
    from handlers.targets.registry import CallableTarget

# The layer that is explained unless another is named: the feature map that emitted the box.
EMITTING = "emitting"
# How AblationCAM removes channels.
ABLATIONS = ("fixed", "tutorial")
# Fields of a request that may be null.
NULLABLE = ("layer", "category", "box", "score_threshold", "max_detections", "masks")


class RequestError(ValueError):
    """A request that cannot be served: names the field, what came, and what is allowed."""

    def __init__(self, name: str, got: object, allowed: str) -> None:
        shown = repr(got)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        super().__init__(f"{name}: got {shown}; allowed: {allowed}")
        self.name = name
        self.allowed = allowed


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
    channels: the share of the channels that AblationCAM removes, above 0 to 1, by the tutorial's
        rule: those with the most and those with the least of their activation where EigenCAM shows
        anything; the others weigh nothing. 1 for all.
    masks: how many masked pictures D-RISE and D-CLOSE look at, 1 to 100000; None for what each
        method's paper has.
    seed: what their random masks are drawn from, 0 to 2^63 - 1.
    """

    method: str = "odam"
    target: str | CallableTarget = "class"
    layer: str | None = None
    fuse: bool = False
    category: str | None = None
    score_threshold: float | None = None
    max_detections: int | None = None
    box: tuple[float, float, float, float] | None = None
    candidates: int = 0
    sum_boxes: bool = False
    shared: bool = False
    save_raw: bool = False
    normalize_in_box: bool = False
    smooth: float = 0.0
    center_prior: float = 0.0
    ablation: str = "fixed"
    channels: float = 1.0
    masks: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        threshold, most = self.score_threshold, self.max_detections
        if threshold is not None and not (
            isinstance(threshold, (int, float)) and 0 <= threshold <= 1
        ):
            raise RequestError("score_threshold", threshold, "a number from 0 to 1")
        if most is not None and not (isinstance(most, int) and 1 <= most <= 10_000):
            raise RequestError("max_detections", most, "an integer from 1 to 10000")
        if not isinstance(self.candidates, int) or not 0 <= self.candidates <= 10_000:
            raise RequestError("candidates", self.candidates, "an integer from 0 to 10000")
        if self.box is not None:
            _check_box(self.box)
            if self.candidates:  # a box is a candidate already
                raise RequestError("candidates", self.candidates, "0 where a box is named")
        for name in SHARES:
            if not _number_within(getattr(self, name), 0, 1):
                raise RequestError(name, getattr(self, name), SHARE)
        if self.shared and not self.center_prior:
            raise RequestError("shared", True, "false, or center_prior above 0")
        if self.shared and self.sum_boxes:
            raise RequestError("shared", True, "false with sum_boxes")
        if self.ablation not in ABLATIONS:
            raise RequestError("ablation", self.ablation, ", ".join(ABLATIONS))
        if not _number_within(self.channels, 0, 1) or not self.channels:
            raise RequestError("channels", self.channels, CHANNELS)
        if self.masks is not None and not _whole(self.masks, 1, 100_000):
            raise RequestError("masks", self.masks, MASKS)
        if not _whole(self.seed, 0, 2**63 - 1):
            raise RequestError("seed", self.seed, SEED)
        if self.fuse and self.save_raw:
            raise RequestError("save_raw", True, "false with fuse: fused maps have no gradient")
        for name in ("method", "layer", "category"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "method"):
                raise RequestError(name, value, "a string")
        if not isinstance(self.target, str) and not callable(self.target):
            raise RequestError("target", self.target, "a name, or a function of the outputs")

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
        known = [each.name for each in fields(cls)]
        parsed = {}
        for name, value in values.items():
            if name not in known:
                raise RequestError("field", name, ", ".join(known))
            parsed[name] = _parse_field(name, value)
        reset = SHAPES if "method" in parsed else ()
        if parsed.get("sum_boxes") or parsed.get("center_prior") == 0:
            reset = (*reset, "shared")  # which goes with neither
        plain = {name: getattr(cls, name) for name in reset}
        return replace(defaults or cls(), **(plain | parsed))


def _parse_field(name: str, value: Any) -> Any:
    if value is None and name in NULLABLE:
        return None
    if name == "score_threshold":
        return _number(name, value, float, "a number from 0 to 1")
    if name == "max_detections":
        return _number(name, value, int, "an integer from 1 to 10000")
    if name == "candidates":
        return _number(name, value, int, "an integer from 0 to 10000")
    if name == "channels":
        return _number(name, value, float, CHANNELS)
    if name in SHARES:
        return _number(name, value, float, SHARE)
    if name == "masks":
        return _number(name, value, int, MASKS)
    if name == "seed":
        return _number(name, value, int, SEED)
    if name in ("fuse", "sum_boxes", "shared", "save_raw", "normalize_in_box"):
        return _truth(name, value)
    if name == "box":
        return _parse_box(value)
    if not isinstance(value, str) or not value:
        raise RequestError(name, value, "a non-empty string")
    return value


CHANNELS = "a number above 0, at most 1"
# Fields that change any method's map, and are chosen together with the default one.
SHAPES = ("smooth", "center_prior", "shared")
SHARES, SHARE = ("smooth", "center_prior"), "a number from 0 to 1"
MASKS = "an integer from 1 to 100000"
SEED = "an integer from 0 to 9223372036854775807"
BOX = "four numbers x1, y1, x2, y2 in picture pixels, with x1 < x2 and y1 < y2"


def _parse_box(value: Any) -> tuple[float, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or len(parts) != 4:
        raise RequestError("box", value, BOX)
    return tuple(_number("box", part, float, BOX) for part in parts)


def _check_box(box: object) -> None:
    if not isinstance(box, tuple) or len(box) != 4 or not all(abs(edge) < 1e6 for edge in box):
        raise RequestError("box", box, f"a tuple of {BOX}")
    x1, y1, x2, y2 = box
    if not (x2 - x1 >= 1e-3 and y2 - y1 >= 1e-3):  # float32 tells these apart
        raise RequestError("box", box, BOX)


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number_within(value: object, least: float, most: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and least <= value <= most  # type: ignore[operator]


def _truth(name: str, value: Any) -> bool:
    known = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
    key = value.lower() if isinstance(value, str) else value
    if not isinstance(key, (str, bool)) or key not in known:
        raise RequestError(name, value, "true or false")
    return known[key]


def _number(name: str, value: Any, kind: type, allowed: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise RequestError(name, value, allowed)
    try:
        number = kind(value)
    except (ValueError, OverflowError) as error:
        raise RequestError(name, value, allowed) from error
    if isinstance(value, float) and number != value:
        raise RequestError(name, value, allowed)
    return number


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
    in_box: pictures show it inside the box alone; of several boxes together inside `boxes`, where
        each of them stands.
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
        box, and inside it from its least value there (0) to its largest (1), as pytorch-grad-cam's
        renormalize_cam_in_bounding_boxes and MMYOLO's norm_in_bbox; all zero if it is flat there.
        The box is widened to whole pixels; of boxes explained together each counts for itself, and
        where they overlap the larger value.
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

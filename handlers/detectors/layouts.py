"""What the outputs of YOLO-like detectors look like, as data: one description for each family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias, TypeVar

from handlers.detectors.letterbox import MIRRORS, RESIZES, NetworkInput
from handlers.detectors.registry import DetectorError

# How the numbers of a box are coded; how many there are, but for "distribution" (4 x bins).
BOXES = {"yolov5": 4, "yolox": 4, "distances": 4, "distribution": 0, "xywh": 4, "xyxy": 4}
GROUPS = ("boxes", "objectness", "classes")
DECODED = ("xywh", "xyxy")
UNITS = ("stride", "pixel")
# Whether a value fits, and in words what does.
Check: TypeAlias = tuple[Callable[[Any], bool], str]


@dataclass(frozen=True)
class Layout:
    """Where in a network's output boxes and scores are, and what its numbers mean.

    head: the module, by name, that takes the feature maps and gives the output described here.
    features: the module that gives the feature maps from the network input; needed for TorchScript
        alone, where no hook can catch what the head takes.
    strides: pixels of the network input to a cell, for each feature map, finest first.
    order: the groups of numbers, in the order in which they stand in an output's channels, or in
        which separate outputs come: "boxes", "objectness" (if it has that), "classes".
    boxes: "yolov5" (also v7; needs anchors), "yolox", "distances" to the four edges (YOLOv6,
        RTMDet), "distribution" over distances (YOLOv8, v11; needs bins), or decoded already, in
        pixels of the network input: "xywh" (the middle first) or "xyxy".
    anchors: for each feature map the (width, height) of its cells' anchors in pixels; empty for
        none. bins: of each distance's distribution. unit: what distances count, "stride" or
        "pixel". middle: where in its cell distances are measured from, 0 ... 1.
    activated: classes and objectness have gone through their sigmoid.
    training_head: the head gives this output only when its own `training` flag is set (its children
        stay in eval mode), as Ultralytics' heads do, which otherwise decode.
    every_label: a candidate may be reported for several categories, not only its best.
    score, iou, detections, strongest: what drops candidates, as in `Limits`.
    input: how a picture becomes network input.
    """

    head: str
    features: str = ""
    strides: tuple[int, ...] = (8, 16, 32)
    order: tuple[str, ...] = ("boxes", "classes")
    boxes: str = "distances"
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()
    bins: int = 16
    unit: str = "stride"
    middle: float = 0.5
    activated: bool = False
    training_head: bool = False
    every_label: bool = False
    score: float = 0.05
    iou: float = 0.45
    detections: int = 300
    strongest: int = 30_000
    input: NetworkInput = field(default_factory=NetworkInput)

    @classmethod
    def named(cls, /, layout: str, **values: Any) -> Layout:
        """One of LAYOUTS with other values where given; lists as YAML and JSON have them. With
        boxes decoded already, `training_head` is off and `activated` on unless they are given.

        Raises DetectorError for an unknown layout or field, or a value that makes no sense.
        """
        if not isinstance(layout, str) or layout not in LAYOUTS:
            raise DetectorError(
                f"layout: got {layout!r}; expected one of {', '.join(sorted(LAYOUTS))}"
            )
        own = dict(LAYOUTS[layout])
        given = values.pop("input", {})
        if not isinstance(given, Mapping):
            raise DetectorError(f"input: got {given!r}; expected a table of options")
        if values.get("boxes") in DECODED:
            own |= {"training_head": False, "activated": True}
        network_input = checked(NetworkInput, {**own.pop("input", {}), **given}, "input ")
        values = {**own, **values, "input": network_input}
        if "head" not in values:
            raise DetectorError(
                "head: missing; expected the name of the module that takes the feature maps"
            )
        return checked(cls, values)

    def __post_init__(self) -> None:
        if sorted(self.order) not in (sorted(GROUPS), ["boxes", "classes"]):
            raise DetectorError(
                f"order: got {list(self.order)}; expected boxes, classes and, if there is one,"
                " objectness, in the order in which they come"
            )
        if not self.strides or list(self.strides) != sorted(set(self.strides)):
            raise DetectorError(
                f"strides: got {list(self.strides)}; expected each once, the finest first"
            )
        if self.boxes == "yolov5" and not self.anchors:
            raise DetectorError("anchors: missing; boxes 'yolov5' are coded by them")
        numbers = {len(each) for each in self.anchors}
        if self.anchors and (len(self.anchors) != len(self.strides) or len(numbers) != 1):
            raise DetectorError(
                f"anchors: got {[len(each) for each in self.anchors]} for {len(self.strides)}"
                " strides; expected equally many [width, height] for each stride"
            )
        height, width = self.input.size
        if any(height % stride or width % stride for stride in self.strides):
            raise DetectorError(
                f"input size: got {height} x {width}; expected multiples of the strides"
                f" {list(self.strides)}"
            )

    @property
    def per_cell(self) -> int:
        """Anchors of a cell."""
        return len(self.anchors[0]) if self.anchors else 1

    def channels(self, num_classes: int) -> dict[str, int]:
        """Numbers of each group, in order."""
        boxes = 4 * self.bins if self.boxes == "distribution" else BOXES[self.boxes]
        every = {"boxes": boxes, "objectness": 1, "classes": num_classes}
        return {name: every[name] for name in self.order}

    def map_sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each feature map for the network input's size."""
        height, width = self.input.size
        return [(height // stride, width // stride) for stride in self.strides]


Made = TypeVar("Made")


def checked(kind: Callable[..., Made], values: Mapping[str, Any], prefix: str = "") -> Made:
    """A Layout or NetworkInput of values as YAML and JSON have them: lists become tuples.

    Raises DetectorError for an unknown name, or a value that CHECKS does not allow.
    """
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            raise DetectorError(f"{prefix}{name}: unknown; expected {', '.join(sorted(known))}")
        if name in CHECKS:
            fits, expected = CHECKS[name]
            if not fits(value):
                shown = repr(value)
                shown = shown if len(shown) < 80 else shown[:77] + "..."
                raise DetectorError(f"{prefix}{name}: got {shown}; expected {expected}")
    return kind(**{name: _tuple(value) for name, value in values.items()})


def _tuple(value: Any) -> Any:
    """Lists, also inside of lists, as tuples."""
    return tuple(_tuple(each) for each in value) if isinstance(value, (list, tuple)) else value


def _number(least: float, most: float, whole: bool = False) -> Check:
    kinds = int if whole else (int, float)
    what = f"a whole number from {least} to {most}" if whole else f"a number from {least} to {most}"

    def fits(value: Any) -> bool:
        return isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most

    return fits, what


def _several(each: Check, what: str, number: int | None = None) -> Check:
    def fits(value: Any) -> bool:
        if not isinstance(value, (list, tuple)) or len(value) > 100:
            return False
        return number in (None, len(value)) and all(each[0](one) for one in value)

    return fits, what


def _one_of(names: Iterable[str]) -> Check:
    several = [*names]
    return lambda value: isinstance(value, str) and value in several, ", ".join(several)


_TRUTH: Check = (lambda value: isinstance(value, bool), "true or false")
_NAME: Check = (lambda value: isinstance(value, str), "a module's name")
_SIDE = _number(1, 16384, whole=True)
_PAIRS = _several(_several(_number(1e-3, 1e5), "", 2), "")
# For each field what it may hold, and that in words.
CHECKS: Mapping[str, Check] = {
    "head": _NAME,
    "features": _NAME,
    "strides": _several(_number(1, 4096, whole=True), "a list of whole pixels"),
    "order": _several(_one_of(GROUPS), f"a list of {', '.join(GROUPS)}"),
    "boxes": _one_of(BOXES),
    "anchors": _several(_PAIRS, "for each stride a list of [width, height] in pixels"),
    "bins": _number(1, 1000, whole=True),
    "unit": _one_of(UNITS),
    "middle": _number(0, 1),
    "activated": _TRUTH,
    "training_head": _TRUTH,
    "every_label": _TRUTH,
    "score": _number(0, 1),
    "iou": _number(0, 1),
    "detections": _number(1, 10_000, whole=True),
    "strongest": _number(1, 10_000_000, whole=True),
    "size": _several(_SIDE, "[height, width] in pixels, at most 16384", 2),
    "resize": _one_of(RESIZES),
    "fill": _number(0, 255),
    "channels": _one_of(("rgb", "bgr")),
    "mean": _several(_number(-1e6, 1e6), "three numbers", 3),
    "std": _several(_number(1e-6, 1e6), "three numbers above 0", 3),
    "mirror": _one_of(MIRRORS),
}
_BGR = {"channels": "bgr", "resize": "corner"}
# What each family's own code does; anchors are those of its models for COCO at 640 pixels.
LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    # github.com/ultralytics/yolov5, models/yolov5s.yaml, utils/general.py
    "yolov5": {
        "order": ("boxes", "objectness", "classes"),
        "boxes": "yolov5",
        "anchors": (
            ((10, 13), (16, 30), (33, 23)),
            ((30, 61), (62, 45), (59, 119)),
            ((116, 90), (156, 198), (373, 326)),
        ),
    },
    # github.com/WongKinYiu/yolov7, cfg/deploy/yolov7.yaml
    "yolov7": {
        "order": ("boxes", "objectness", "classes"),
        "boxes": "yolov5",
        "anchors": (
            ((12, 16), (19, 36), (40, 28)),
            ((36, 75), (76, 55), (72, 146)),
            ((142, 110), (192, 243), (459, 401)),
        ),
    },
    # github.com/ultralytics/ultralytics, nn/modules/head.py: Detect
    "yolov8": {"boxes": "distribution", "training_head": True, "iou": 0.7},
    "yolov11": {"boxes": "distribution", "training_head": True, "iou": 0.7},
    # github.com/meituan/YOLOv6, models/effidehead.py: its small models; the larger ones have
    # boxes "distribution" with 17 bins.
    "yolov6": {
        "order": ("classes", "boxes"),
        "boxes": "distances",
        "activated": True,
        "training_head": True,
    },
    # github.com/Megvii-BaseDetection/YOLOX, models/yolo_head.py with decode_in_inference off
    "yolox": {
        "order": ("boxes", "objectness", "classes"),
        "boxes": "yolox",
        "middle": 0.0,
        "activated": True,
        "iou": 0.65,
        "input": {**_BGR, "std": (1.0, 1.0, 1.0)},
    },
    # github.com/open-mmlab/mmdetection, models/dense_heads/rtmdet_head.py
    "rtmdet": {
        "order": ("classes", "boxes"),
        "boxes": "distances",
        "unit": "pixel",
        "middle": 0.0,
        "every_label": True,
        "iou": 0.65,
        "input": {**_BGR, "mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)},
    },
}

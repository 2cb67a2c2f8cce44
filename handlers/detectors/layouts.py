"""What the outputs of YOLO-like detectors look like, as data: one description for each family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from handlers.detectors.letterbox import MIRRORS, RESIZES, NetworkInput
from handlers.detectors.registry import DetectorError

# How the numbers of a box are coded; how many there are, but for "distribution" (4 x bins).
BOXES = {"yolov5": 4, "yolox": 4, "distances": 4, "distribution": 0, "xywh": 4, "xyxy": 4}
GROUPS = ("boxes", "objectness", "classes")
UNITS = ("stride", "pixel")


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
    def named(cls, layout: str, **values: Any) -> Layout:
        """One of LAYOUTS with other values where given; lists as YAML and JSON have them.

        Raises DetectorError for an unknown layout or field, or a value that makes no sense.
        """
        if layout not in LAYOUTS:
            raise DetectorError(
                f"layout: got {layout!r}; expected one of {', '.join(sorted(LAYOUTS))}"
            )
        own = dict(LAYOUTS[layout])
        given = values.pop("input", None) or {}
        size = _input({**own.pop("input", {}), **_table("input", given)})
        values = {**own, **{name: _tuple(value) for name, value in values.items()}}
        known = {each.name for each in fields(cls)}
        for name in values:
            if name not in known:
                raise DetectorError(f"{name}: unknown; expected {', '.join(sorted(known))}")
        if "head" not in values:
            raise DetectorError(
                "head: missing; expected the name of the module that takes the feature maps"
            )
        try:
            return replace(cls(**values, input=size))
        except TypeError as error:
            raise DetectorError(f"layout {layout}: {error}") from error

    def __post_init__(self) -> None:
        for name, got, allowed in (
            ("boxes", self.boxes, [*BOXES]),
            ("unit", self.unit, [*UNITS]),
        ):
            if got not in allowed:
                raise DetectorError(f"{name}: got {got!r}; expected one of {', '.join(allowed)}")
        if sorted(self.order) not in (sorted(GROUPS), ["boxes", "classes"]):
            raise DetectorError(
                f"order: got {list(self.order)}; expected boxes, classes and, if there is one,"
                " objectness, in the order in which they come"
            )
        if not self.strides or any(not isinstance(each, int) or each < 1 for each in self.strides):
            raise DetectorError(f"strides: got {list(self.strides)}; expected whole pixels")
        if self.boxes == "yolov5" and not self.anchors:
            raise DetectorError("anchors: missing; boxes 'yolov5' are coded by them")
        numbers = {len(each) for each in self.anchors}
        if self.anchors and (len(self.anchors) != len(self.strides) or len(numbers) != 1):
            raise DetectorError(
                f"anchors: got {[len(each) for each in self.anchors]} for {len(self.strides)}"
                " strides; expected equally many [width, height] for each stride"
            )
        if any(len(pair) != 2 for each in self.anchors for pair in each):
            raise DetectorError("anchors: expected pairs [width, height] in pixels")
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


def _input(values: Mapping[str, Any]) -> NetworkInput:
    known = {each.name for each in fields(NetworkInput)}
    for name in values:
        if name not in known:
            raise DetectorError(f"input: unknown {name}; expected {', '.join(sorted(known))}")
    made = NetworkInput(**{name: _tuple(value) for name, value in values.items()})
    for name, got, allowed in (
        ("resize", made.resize, RESIZES),
        ("mirror", made.mirror, MIRRORS),
        ("channels", made.channels, ("rgb", "bgr")),
    ):
        if got not in allowed:
            raise DetectorError(f"input {name}: got {got!r}; expected {', '.join(allowed)}")
    sizes = isinstance(made.size, tuple) and len(made.size) == 2
    if not sizes or any(not isinstance(each, int) or each < 1 for each in made.size):
        raise DetectorError(f"input size: got {values.get('size')}; expected [height, width]")
    if len(made.mean) != 3 or len(made.std) != 3 or not all(made.std):
        raise DetectorError("input: expected three numbers each for mean and std, std not 0")
    return made


def _table(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DetectorError(f"{name}: got {value!r}; expected a table of options")
    return value


def _tuple(value: Any) -> Any:
    """Lists, also inside of lists, as tuples."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_tuple(each) for each in value)
    return value


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
    "yolov6": {"order": ("classes", "boxes"), "boxes": "distances"},
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

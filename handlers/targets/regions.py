"""What is drawn inside the box: Mask R-CNN's mask, Keypoint R-CNN's keypoints."""

from __future__ import annotations

from torch import Tensor

from handlers.fields import RequestError
from handlers.targets.registry import TARGETS, Outputs, Target

# COCO's keypoints in torchvision's order.
KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)


def _mask(outputs: Outputs, _: str) -> list[Tensor]:
    """The mean mask logit inside the predicted mask (probability above one half): [N].

    Where the mask is empty the scalar is a constant zero.
    """
    logits = outputs["mask_logits"]
    inside = (logits.detach() > 0).to(logits)
    return [(logits * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)]


def _keypoint(outputs: Outputs, argument: str) -> list[Tensor]:
    """The logit at the peak of a keypoint's heatmap; without a name the mean over all: [N]."""
    peaks = outputs["keypoint_logits"].flatten(2).amax(2)
    if not argument:
        return [peaks.mean(1)]
    return [peaks[:, keypoint_place(argument, peaks.shape[1])]]


def keypoint_place(argument: str, number: int) -> int:
    """Which of `number` keypoints a name or number means; raises RequestError for none of them."""
    place = KEYPOINTS.index(argument) if argument in KEYPOINTS else int(argument)
    if place >= number:
        raise RequestError("target", f"keypoint:{argument}", f"keypoint:0 ... {number - 1}")
    return place


TARGETS.register("mask")(Target(("mask_logits",), _mask))
TARGETS.register("keypoint")(
    Target(("keypoint_logits",), _keypoint, (*KEYPOINTS, *map(str, range(100))))
)

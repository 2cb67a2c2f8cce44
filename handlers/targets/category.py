"""What the box is, and whether anything is there."""

from __future__ import annotations

from torch import Tensor

from handlers.targets.registry import TARGETS, Outputs, Target


def _class_logit(outputs: Outputs, _: str) -> list[Tensor]:
    return [outputs.own("logits")]


def _probability(outputs: Outputs, _: str) -> list[Tensor]:
    return [outputs["scores"]]


def _objectness(outputs: Outputs, _: str) -> list[Tensor]:
    return [outputs["objectness"]]


def _centerness(outputs: Outputs, _: str) -> list[Tensor]:
    return [outputs["centerness"]]


# The logit before softmax or sigmoid.
TARGETS.register("class")(Target(("logits",), _class_logit))
# The score as the detector reports it; FCOS's holds the centerness, too.
TARGETS.register("probability")(Target(("scores",), _probability))
# The region proposal network's logit of the anchor that the box came from.
TARGETS.register("objectness")(Target(("objectness",), _objectness))
# FCOS's logit for "I am near the middle of the object".
TARGETS.register("centerness")(Target(("centerness",), _centerness))

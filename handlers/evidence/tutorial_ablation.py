"""Ablation as pytorch-grad-cam's tutorial on Faster R-CNN has it, so that results can be compared.

Source: "Class Activation Maps for Object Detection with Faster RCNN" of pytorch-grad-cam's
documentation, with its AblationLayerFasterRCNN and fasterrcnn_reshape_transform. Looked at are all
feature maps side by side. A channel becomes -1000 (not zero) in its map, everything after the
feature maps runs anew, and each chosen box counts by the box that is then nearest to it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from handlers.cam.channels import ChannelScores, most_and_least_shown
from handlers.detectors.base import Features, Found
from handlers.evidence.gradients import side_by_side
from handlers.evidence.scene import Piece, Question, in_chunks
from handlers.network import with_pixels
from handlers.targets.box_score import FasterRCNNBoxScoreTarget

REMOVED = -1000.0
# What proposing and scoring hold at a time, in multiples of the feature maps.
HELD = 4


@torch.no_grad()
def piece(question: Question, share: float) -> Piece:
    """The one explanation of all chosen boxes together, with ChannelScores of 1 x all channels.

    share: of the channels that are removed, as `most_and_least_shown` takes it.
    """
    scene = question.scene
    found, maps = scene.found, scene.maps
    activation = side_by_side([each.abs() for each in maps])[0]
    boxes = found.features.inputs.on_picture(question.chosen.boxes).to(torch.int32)
    target = FasterRCNNBoxScoreTarget(question.chosen.labels.tolist(), boxes)
    value = _value(target, found)
    changed = value.repeat(len(activation))
    channels = most_and_least_shown(activation, share)
    for own in in_chunks(len(channels), HELD * sum(each.numel() for each in maps)):
        features = _without(found.features, channels[own])
        values = [_value(target, each) for each in scene.network.find_in(features)]
        changed[channels[own]] = torch.cat(values)
    scores = ChannelScores(activation, value, changed[None])
    return Piece(torch.zeros(1, dtype=torch.int64), [scores], [found.frame])


def _value(target: FasterRCNNBoxScoreTarget, found: Found) -> Tensor:
    """[1], of what was found."""
    entries = found.kept.entries
    return target({"boxes": found.kept.boxes, "labels": entries.labels, "scores": entries.scores})


def _without(features: Features, channels: Tensor) -> Features:
    """A batch of the picture's feature maps, each without one of int64 channels [k] of all maps
    side by side."""
    number, first, maps = len(channels), 0, {}
    for name, each in features.maps.items():
        maps[name] = each.repeat(number, 1, 1, 1)
        row = torch.where((channels >= first) & (channels < first + each.shape[1]))[0]
        maps[name][row, channels[row] - first] = REMOVED
        first += each.shape[1]
    inputs = features.inputs
    pixels = inputs.tensors.expand(number, -1, -1, -1)
    return replace(features, inputs=with_pixels(inputs, pixels), maps=maps)

"""Methods that weigh whole channels by what the detector says without them, or of them alone; and
which channels are worth removing. None of them needs a gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from handlers.cam.gradient import DenseGradient, weighted_sum
from handlers.cam.principal import eigencam
from handlers.cam.registry import METHODS, Evidence, looks_at

# EigenCAM shows something where it is above this share of its range.
SHOWN = 0.01


@dataclass(frozen=True)
class ChannelScores:
    """What N explanations' scalar becomes by one channel of an activation.

    activation: [C, h, w]. value: [N], the scalar as it is. changed: [N, C], the scalar when one
    channel is removed (Ablation-CAM), or when the picture is masked by it (Score-CAM).
    """

    activation: Tensor
    value: Tensor
    changed: Tensor

    def __len__(self) -> int:
        return len(self.value)

    def weighted(self, weights: Tensor) -> Tensor:
        """sum over channels of weights [N, C] times the activation: maps [N, h, w]."""
        return weighted_sum(weights, self.activation)


@METHODS.register("ablationcam")
@looks_at(Evidence.ABLATION)
def ablationcam(scores: ChannelScores) -> Tensor:
    """Ablation-CAM (Desai and Ramaswamy, WACV 2020): sum_k w_k A_k with w_k = (y - y_k) / y, where
    y_k is the scalar without channel k.

    The formula is kept as it stands for a y that is near zero, where weights are large, or negative
    (a logit of less than even odds), where they change their sign: a channel that supports the box
    then weighs less than nothing. The target `probability` has neither. Where y is exactly zero all
    weights are zero, and so is the map.
    """
    value = scores.value[:, None]
    nothing = value == 0
    weights = (value - scores.changed) / value.masked_fill(nothing, 1)
    return scores.weighted(weights.masked_fill(nothing, 0))


@METHODS.register("scorecam")
@looks_at(Evidence.CHANNELS_AS_MASKS)
def scorecam(scores: ChannelScores) -> Tensor:
    """Score-CAM (Wang et al., CVPR workshops 2020): sum_k w_k A_k, where w is the softmax over
    channels of the scalar of the picture masked by channel k.

    The paper takes the scalar's increase over that of a baseline picture; a constant drops out of
    the softmax. Its text does not say whether the scalar is a logit or a probability: it is the
    target that was asked for. The softmax has the target's unit in it: of the probability all
    weights are nearly alike, of an edge in pixels one channel has nearly all of the weight.
    """
    return scores.weighted(scores.changed.softmax(1))


def most_and_least_shown(activation: Tensor, share: float) -> Tensor:
    """The channels that pytorch-grad-cam's AblationCAM removes with `ratio_channels_to_ablate`:
    int64 [k], ascending, each once.

    activation: [C, h, w]. share: above 0 to 1; 1 is all channels. Cells count as shown where the
    absolute value of EigenCAM is above a hundredth of its range. Of each channel the absolute
    values, less their minimum, are added up in the shown cells and divided by their sum in all. Of
    the channels in this order the first int(C * share), at least one, and the last as many are
    taken. A channel that is the same everywhere has no such number and stands last, as there.

    For shares above one half the two runs overlap. There pytorch-grad-cam reads the weights of the
    channels after the first that is in both as those of unremoved ones; here each counts.
    """
    channels = len(activation)
    if share == 1:
        return torch.arange(channels, device=activation.device)
    projection = eigencam(DenseGradient(activation, activation[None]))[0].abs()
    above = projection - projection.min()
    shown = (above / above.max() > SHOWN).flatten().cpu().numpy()
    # In numpy, so that ties, of which a few cells make many, fall as they do there.
    strength = activation.abs().flatten(1).cpu().numpy()
    strength = strength - strength.min(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        strength = strength / strength.max(1, keepdims=True)
        order = np.argsort((strength * shown).sum(1) / strength.sum(1))
    number = max(1, int(channels * share))
    chosen = np.unique(np.concatenate([order[:number], order[channels - number :]]))
    return torch.from_numpy(chosen).to(activation.device)

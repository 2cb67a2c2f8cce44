from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pytorch_grad_cam.ablation_layer import AblationLayer

from handlers.cam.channels import ChannelScores, ablationcam, most_and_least_shown, scorecam

ACTIVATION = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 3.0], [0.0, -1.0]]])


def test_ablationcam_by_hand() -> None:
    value = torch.tensor([2.0, -1.0, 0.0])
    changed = torch.tensor([[1.0, 3.0], [-2.0, -1.0], [5.0, 6.0]])
    maps = ablationcam(ChannelScores(ACTIVATION, value, changed))
    # Weights: (2 - 1) / 2 and (2 - 3) / 2; (-1 + 2) / -1 and 0; of a value of zero none.
    weights = [(0.5, -0.5), (-1.0, 0.0), (0.0, 0.0)]
    for heatmap, (first, second) in zip(maps, weights, strict=True):
        assert torch.equal(heatmap, first * ACTIVATION[0] + second * ACTIVATION[1])


def test_scorecam_by_hand() -> None:
    changed = torch.tensor([[0.0, math.log(3.0)], [7.0, 7.0]])
    maps = scorecam(ChannelScores(ACTIVATION, torch.zeros(2), changed))
    torch.testing.assert_close(maps[0], 0.25 * ACTIVATION[0] + 0.75 * ACTIVATION[1])
    torch.testing.assert_close(maps[1], 0.5 * ACTIVATION.sum(0))
    shifted = scorecam(ChannelScores(ACTIVATION, torch.zeros(2), changed + 5))
    torch.testing.assert_close(shifted, maps)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_channels_are_those_of_pytorch_grad_cam(share: float, seed: int) -> None:
    activation = np.random.default_rng(seed).normal(size=(60, 7, 9)).astype(np.float32)
    activation = np.maximum(activation, 0) if seed == 1 else np.abs(activation)
    activation[:5] *= np.linspace(0, 9, 9, dtype=np.float32)
    if seed == 2:
        activation[3], activation[40] = 0, 2  # the same everywhere: the peer's scores are NaN
    with np.errstate(invalid="ignore"):
        theirs = AblationLayer().activations_to_be_ablated(activation.copy(), share)
    ours = most_and_least_shown(torch.from_numpy(activation), share)
    assert ours.tolist() == sorted(set(theirs.tolist()))
    if share <= 0.5:
        assert len(ours) == 2 * int(60 * share)


def test_the_smallest_share_still_removes_the_first_and_the_last() -> None:
    activation = torch.rand(6, 4, 5, generator=torch.Generator().manual_seed(0))
    assert len(most_and_least_shown(activation, 0.001)) == 2

from __future__ import annotations

import math
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from handlers.cam.segments import SCALES, dclose, fused
from handlers.cam.superpixels import slic
from tests.handlers.cam.synthetic_masks import PLACES, Synthetic, means_by_hand, of_places


def masks_by_hand(evidence: Synthetic) -> list[list[Tensor]]:
    """D-CLOSE's masks of each scale one by one: the whole mask made 3.2 times as large, and cut."""
    generator = torch.Generator().manual_seed(evidence.seed)
    height, width = evidence.height, evidence.width
    tall, wide = height + math.floor(2.2 * height), width + math.floor(2.2 * width)
    scales: list[list[Tensor]] = []
    assert evidence.masks is not None
    for segments in SCALES:
        labels = slic(evidence.picture(), segments)
        scales.append([])
        for _ in range(evidence.masks // len(SCALES)):
            drawn = torch.rand(int(labels.max()) + 3, generator=generator)
            shown = (drawn[:-2] < 0.5).float()[labels]
            large = F.interpolate(shown[None, None], (tall, wide), mode="bilinear")[0, 0]
            y = int(drawn[-2] * (tall - height + 1))
            x = int(drawn[-1] * (wide - width + 1))
            scales[-1].append(large[y : y + height, x : x + width])
    return scales


def test_equals_plain_loops() -> None:
    evidence = Synthetic(of_places, masks=30, seed=3, batch=4)
    maps = dclose(evidence)
    scales = masks_by_hand(evidence)
    for ours, theirs in zip(evidence.shown, chain(*reversed(scales)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    for heat, (row, column) in zip(maps, PLACES, strict=True):
        whole: Tensor | None = None
        for masks in reversed(scales):
            means = [means_by_hand(mask, 4) for mask in masks]
            total, density = torch.zeros_like(means[0]), torch.zeros_like(means[0])
            for mask, mean in zip(masks, means, strict=True):
                total += mask[row, column] * mean
                density += mean
            scale = total / density
            scale = (scale - scale.min()) / (scale.max() - scale.min())
            whole = scale if whole is None else (whole + scale) * scale
        assert whole is not None
        torch.testing.assert_close(heat, whole, atol=2e-3, rtol=1e-3)


def test_fusion_by_hand() -> None:
    fine, coarse = torch.tensor([[[1.0, 3.0, 2.0]]]), torch.tensor([[[5.0, 6.0, 9.0]]])
    # From 0 to 1: (0, 1, 0.5) and (0, 0.25, 1): (H + S) S = (0, 1.25 x 0.25, 1.5 x 1).
    expected = torch.tensor([[[0.0, 0.3125, 1.5]]])
    flat = torch.full((1, 1, 3), 7.0)
    torch.testing.assert_close(fused([fine, coarse]), expected)
    torch.testing.assert_close(fused([flat, fine, flat, coarse, flat]), expected)
    torch.testing.assert_close(fused([fine]), torch.tensor([[[0.0, 1.0, 0.5]]]))
    assert not fused([flat, flat]).any()
    # Each explanation by itself.
    both = fused([torch.cat([fine, fine]), torch.cat([coarse, flat])])
    torch.testing.assert_close(both, torch.cat([expected, fused([fine])]))


def test_the_map_peaks_where_the_evidence_is() -> None:
    maps = dclose(Synthetic(of_places, masks=2000, batch=400))
    for heat, (row, column) in zip(maps, PLACES, strict=True):
        y, x = divmod(int(heat.argmax()), heat.shape[1])
        assert abs((y + 0.5) * 4 - row) <= 6
        assert abs((x + 0.5) * 4 - column) <= 6


@pytest.mark.parametrize("masks", [1, 2, 7, 40])
def test_the_batch_changes_nothing(masks: int) -> None:
    several = [Synthetic(of_places, masks=masks, batch=batch) for batch in (1, 3, 999)]
    maps = [dclose(each) for each in several]
    for evidence, other in zip(several, maps, strict=True):
        assert len(evidence.shown) == masks
        assert bool(other.isfinite().all())
        torch.testing.assert_close(other, maps[0], atol=1e-4, rtol=0)


def test_as_many_masks_as_in_the_paper() -> None:
    evidence = Synthetic(of_places, masks=None, height=60, width=70, batch=800)
    dclose(evidence)
    assert len(evidence.shown) == 4000


def test_nothing_found_gives_a_map_of_zeros() -> None:
    maps = dclose(Synthetic(lambda masks: torch.zeros(2, len(masks)), masks=20))
    assert maps.shape == (2, 13, 18)
    assert not maps.any()

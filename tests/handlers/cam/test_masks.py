from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from handlers.cam.masks import cell_means, drise
from handlers.cam.registry import Method
from handlers.cam.segments import dclose
from handlers.memory import measured
from tests.handlers.cam.synthetic_masks import (
    PLACES,
    Synthetic,
    means_by_hand,
    of_places,
    rise_masks,
)


def test_two_boxes_and_two_masks_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.tensor([[[1.0, 0.0]], [[0.5, 1.0]]])
    monkeypatch.setattr("handlers.cam.masks.smooth", lambda grids, rows, columns: masks)
    found = torch.tensor([[0.8, 0.2], [0.0, 0.6]])
    maps = drise(Synthetic(lambda _: found, masks=2, height=1, width=2, cell=1))
    # 0.8 (1, 0) + 0.2 (0.5, 1) = (0.9, 0.2); 0.6 (0.5, 1) = (0.3, 0.6); over 2 masks x 0.5, less
    # the least value.
    torch.testing.assert_close(maps, torch.tensor([[[0.7, 0.0]], [[0.0, 0.3]]]))


@pytest.mark.parametrize(("height", "width"), [(50, 70), (64, 48), (5, 9)])
def test_masks_are_rise_s_and_the_map_is_their_sum(height: int, width: int) -> None:
    values = torch.rand(3, 30)
    evidence = Synthetic(lambda _: values, masks=30, seed=5, height=height, width=width, batch=30)
    maps = drise(evidence)
    masks = rise_masks(5, 30, height, width)
    for ours, theirs in zip(evidence.shown, masks, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    for number in range(3):
        heat = sum(values[number, i] * means_by_hand(masks[i], 4) for i in range(30)) / (30 * 0.5)
        assert isinstance(heat, Tensor)
        torch.testing.assert_close(maps[number], heat - heat.min(), atol=1e-4, rtol=0)


def test_half_of_the_picture_is_shown_everywhere() -> None:
    evidence = Synthetic(of_places, masks=2000, batch=500)
    drise(evidence)
    mean = torch.stack(evidence.shown).mean(0)
    assert float((mean - 0.5).abs().max()) < 0.06


def test_the_map_peaks_where_the_evidence_is() -> None:
    maps = drise(Synthetic(of_places, masks=1500, batch=300))
    for heat, (row, column) in zip(maps, PLACES, strict=True):
        y, x = divmod(int(heat.argmax()), heat.shape[1])
        assert abs((y + 0.5) * 4 - row) <= 4
        assert abs((x + 0.5) * 4 - column) <= 4
        assert float(heat.min()) == 0 < float(heat.max())


def test_the_batch_changes_nothing_and_the_seed_does() -> None:
    several = [Synthetic(of_places, batch=batch) for batch in (1, 7, 40, 999)]
    maps = [drise(each) for each in several]
    for evidence, other in zip(several, maps, strict=True):
        torch.testing.assert_close(other, maps[0], atol=1e-6, rtol=0)
        assert torch.stack(evidence.shown).shape == (40, 50, 70)
        torch.testing.assert_close(evidence.shown, several[0].shown, atol=1e-6, rtol=0)
    again = replace(several[0], shown=[])
    assert torch.equal(drise(again), maps[0])
    assert not torch.allclose(drise(replace(again, seed=1)), maps[0], atol=0.01)


def test_as_many_masks_as_in_the_paper() -> None:
    def nothing(masks: Tensor) -> Tensor:
        return torch.zeros(1, len(masks))

    evidence = Synthetic(nothing, masks=None, height=8, width=8, batch=1000)
    assert not drise(evidence).any()
    assert len(evidence.shown) == 5000


@pytest.mark.parametrize("cell", [1, 3, 4, 8])
def test_cell_means_by_hand(cell: int) -> None:
    masks = torch.rand(3, 16, 13)
    for mask, means in zip(masks, cell_means(masks, cell), strict=True):
        torch.testing.assert_close(means, means_by_hand(mask, cell))


def many_boxes(masks: Tensor) -> Tensor:
    """1000 explanations, each found as far as one of the pixels is shown."""
    return masks.flatten(1)[:, :1000].T


@pytest.mark.parametrize("boxes_at_a_time", [1, 300, 1000])
def test_many_boxes_have_the_sums_of_plain_loops(
    boxes_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = Synthetic(many_boxes, masks=9, batch=4)
    monkeypatch.setattr("handlers.cam.masks.WINDOW_BUDGET", boxes_at_a_time * 13 * 18)
    maps = drise(evidence)
    means = cell_means(torch.stack(evidence.shown), 4).double()
    for number in (0, 299, 300, 999):
        heat = torch.zeros(13, 18, dtype=torch.float64)
        for mask, mean in zip(evidence.shown, means, strict=True):
            heat += float(mask.flatten()[number]) * mean
        expected = (heat - heat.min()) / (0.5 * 9)
        torch.testing.assert_close(maps[number], expected.float(), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("method", "copies"), [(drise, 1.5), (dclose, 2)])
def test_memory_holds_few_copies_of_the_sums(
    method: Method, copies: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.cam.masks.WINDOW_BUDGET", 10 * 13 * 18)
    evidence = Synthetic(many_boxes, masks=20, batch=2, keep=False)
    sums = 1000 * 13 * 18 * 8
    # Beside them the finished maps, of half their size, and for superpixels some of the picture's.
    assert measured(lambda: method(evidence))[1] < (copies + 0.2) * sums + 400_000


def test_memory_does_not_grow_with_the_masks() -> None:
    def run(masks: int) -> Tensor:
        return drise(Synthetic(lambda masks: masks[:, 0, :2].T, masks=masks, batch=8, keep=False))

    few, many = (measured(lambda masks=masks: run(masks))[1] for masks in (24, 240))  # type: ignore[misc]
    assert many == few < 2_000_000

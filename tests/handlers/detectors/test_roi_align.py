from __future__ import annotations

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from handlers.detectors.roi_align import pooled, pooling_matrices, weighed_cells

BOXES = torch.tensor(
    [
        [10.0, 12.0, 90.0, 70.0],
        [-20.0, -9.0, 40.0, 31.0],  # over the upper left border
        [60.0, 50.0, 180.0, 140.0],  # over the lower right one
        [30.0, 30.0, 30.5, 30.2],  # smaller than a cell
        [0.0, 0.0, 128.0, 96.0],
        [200.0, 200.0, 220.0, 230.0],  # off the map altogether
    ]
)


@pytest.mark.parametrize("sampling_ratio", [2, 3, 0])
@pytest.mark.parametrize("scale", [0.25, 0.125])
def test_equal_to_torchvision_forward_and_backward(sampling_ratio: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    size = (int(96 * scale), int(128 * scale))
    activation = torch.randn(1, 5, *size, generator=generator, requires_grad=True)
    rois = torch.cat([torch.zeros(len(BOXES), 1), BOXES], 1)
    theirs = roi_align(activation, rois, (7, 6), scale, sampling_ratio)
    rows, columns = pooling_matrices(BOXES, scale, size, (7, 6), sampling_ratio)
    ours = torch.einsum("npy,cyx,nqx->ncpq", rows, activation[0], columns)
    assert torch.allclose(ours, theirs, atol=2e-5)
    upstream = torch.randn(theirs.shape, generator=generator)
    (expected,) = torch.autograd.grad(theirs, activation, upstream)
    gradient = torch.einsum("npy,ncpq,nqx->cyx", rows, upstream, columns)
    assert torch.allclose(gradient, expected[0], atol=2e-5)


def test_one_bin_by_hand() -> None:
    # A box from cell 1 to cell 3 with one bin and two samples: at 1.5 and 2.5, so that cells
    # 1, 2, 3 weigh 1/4, 1/2, 1/4.
    rows, _ = pooling_matrices(torch.tensor([[0.0, 1.0, 4.0, 3.0]]), 1.0, (5, 5), (1, 1), 2)
    assert rows[0, 0].tolist() == [0, 0.25, 0.5, 0.25, 0]


@pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
@pytest.mark.parametrize("scale", [0.25, 0.125])
def test_weighed_cells_are_torchvisions(sampling_ratio: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(2)
    activation = torch.randn(2, 5, int(96 * scale), int(128 * scale), generator=generator)
    picture = torch.arange(len(BOXES)) % 2
    rois = torch.cat([picture[:, None], BOXES], 1)
    theirs = roi_align(activation, rois, (7, 6), scale, sampling_ratio)
    ours = weighed_cells(activation, picture, BOXES, scale, (7, 6), sampling_ratio)
    torch.testing.assert_close(ours.permute(0, 3, 1, 2), theirs, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("names", [["0", "1", "2"], ["1"]])
@pytest.mark.parametrize("gradients", [False, True])
def test_all_levels_are_torchvisions(
    names: list[str], gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(3)
    maps = {
        str(level): torch.randn(2, 5, 48 >> level, 64 >> level, generator=generator)
        for level in range(4)
    }
    pool = MultiScaleRoIAlign(names, 7, 2, canonical_scale=60)
    sizes, boxes = [(192, 256), (190, 250)], [BOXES, BOXES[:2]]
    expected = pool(maps, boxes, sizes)
    if not gradients:  # it is not torchvision that does it
        monkeypatch.setattr(MultiScaleRoIAlign, "forward", None)
    with torch.set_grad_enabled(gradients):
        found = pooled(pool, maps, boxes, sizes)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
        if not gradients:
            assert pooled(pool, maps, [BOXES[:0], BOXES[:0]], sizes).shape == (0, 5, 7, 7)

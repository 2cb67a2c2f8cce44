"""The methods of the whole network on numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from handlers.cam import pixels
from handlers.cam.gradient import DenseGradient
from handlers.cam.pixels import (
    GuidedGradient,
    PixelGradient,
    coarse,
    fullgrad,
    guided,
    guidedgradcam,
    on_blocks,
)
from handlers.images import Geometry

# A picture of 4 x 2 pixels, seen as it is.
FRAME = Geometry(4, 2, 4.0, 2.0, 1.0, 1.0)


@dataclass(frozen=True)
class Known(PixelGradient):
    """Terms and a guided gradient that are written down."""

    frame: Geometry = FRAME
    each: list[tuple[Tensor, Geometry]] = field(default_factory=list)
    gradient: Tensor = field(default_factory=lambda: torch.zeros(3, 2, 4))

    def guided(self) -> Tensor:
        return self.gradient

    def terms(self, function: Callable[[Tensor], Tensor]) -> Iterable[tuple[Tensor, Geometry]]:
        return [(function(term), geometry) for term, geometry in self.each]


INPUT = torch.tensor(
    [
        [[1.0, -2.0, 1.0, 1.0], [1.0, 1.0, 1.0, 3.0]],  # magnitudes from 1 to 5 ...
        [[5.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]],  # ... over both channels
    ]
)
STRETCHED = torch.tensor([[1.0, 0.25, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5]])


def test_fullgrad_stretches_a_layer_and_adds_its_channels() -> None:
    assert torch.equal(fullgrad(Known(each=[(INPUT, FRAME)])), STRETCHED[None])
    # Whatever its size, and also where it is next to nothing.
    assert torch.equal(fullgrad(Known(each=[(INPUT * 1e-30, FRAME)]))[0], STRETCHED)


def test_fullgrad_upsamples_layers_to_where_they_lie() -> None:
    layer = torch.tensor([[[0.0, -8.0]]])  # 0 and 1 in the middle of each half
    found = fullgrad(Known(each=[(INPUT, FRAME), (layer, FRAME)]))[0]
    expected = STRETCHED + torch.tensor([0.0, 0.25, 0.75, 1.0])
    torch.testing.assert_close(found, expected)


def test_a_layer_of_no_contrast_counts_nothing() -> None:
    flat = torch.full((2, 1, 2), -3.0)
    found = fullgrad(Known(each=[(INPUT, FRAME), (flat, FRAME), (0 * flat, FRAME)]))[0]
    assert torch.equal(found, STRETCHED)


def test_guided_is_the_largest_magnitude_of_the_colours() -> None:
    gradient = torch.tensor([[[1.0, -2.0]], [[0.5, 1.0]], [[-3.0, 0.0]]])
    assert guided(Known(gradient=gradient)).tolist() == [[[3.0, 2.0]]]


def test_guided_gradcam_cuts_the_map_before_it_multiplies() -> None:
    # Grad-CAM: the mean gradient 2 times the map, which is -1 on the left, 2 on the right.
    activation = torch.tensor([[[-1.0, 2.0]]])
    layer = DenseGradient(activation, torch.tensor([[[[1.0, 3.0]]]]))
    own = Known(gradient=torch.tensor([-1.0, 2.0, 0.0])[:, None, None].expand(3, 2, 4))
    found = guidedgradcam(GuidedGradient([(layer, FRAME)], own))[0]
    upsampled = torch.tensor([0.0, 1.0, 3.0, 4.0])
    torch.testing.assert_close(found, 2 * upsampled.expand(2, 4))
    # The other map's Grad-CAM cancels the left half's: added up first, cut at zero then.
    other = DenseGradient(torch.tensor([[[3.0]]]), torch.tensor([[[[1.0]]]]))
    found = guidedgradcam(GuidedGradient([(layer, FRAME), (other, FRAME)], own))[0]
    torch.testing.assert_close(found[0], 2 * torch.tensor([1.0, 2.5, 5.5, 7.0]))


@pytest.mark.parametrize(("most", "side"), [(15, 1), (14, 2), (6, 2), (5, 3), (2, 3), (1, 5)])
def test_large_maps_become_means_of_blocks(
    most: int, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "MOST_CELLS", most)
    frame = Geometry(10, 6, 10.0, 6.0, 1.0, 1.0)
    heatmap = torch.arange(15.0).view(3, 5)
    found, geometry = coarse(heatmap, frame)
    assert geometry == on_blocks(frame, 3, 5)
    rows, columns = range(0, 3, side), range(0, 5, side)
    expected = [[float(heatmap[y : y + side, x : x + side].mean()) for x in columns] for y in rows]
    assert found.tolist() == expected
    # A cell of the map is 2 pixels wide: the blocks' edges lie where they should.
    assert geometry.cell_of(2.0 * side, 2.0 * side, len(rows), len(columns)) == (1.0, 1.0)

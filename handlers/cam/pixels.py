"""Methods that go through the whole network down to its input: FullGrad (Srinivas and Fleuret
2019), guided backpropagation (Springenberg et al. 2015), Guided Grad-CAM (Selvaraju et al. 2017).

Their maps lie on the network input's own grid, or on blocks of its pixels where it has more than
MOST_CELLS of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from handlers.cam.gradient import MapGradient
from handlers.cam.registry import METHODS, Evidence, looks_at
from handlers.cam.weighting import gradcam
from handlers.guided import guided_gradcam
from handlers.images import Geometry, added_on

# A hundred boxes' maps of 800 x 1333 pixels would take 400 MB; as blocks of 4 x 4 they take 26.
MOST_CELLS = 65_536


class PixelGradient(ABC):
    """One explanation's gradient with respect to the network input [3, h, w], and to what is added
    on the way.

    frame: where the network input lies on the picture.
    """

    frame: Geometry

    @abstractmethod
    def guided(self) -> Tensor:
        """The gradient [3, h, w], signed, where every nn.ReLU passes back only what is positive."""

    @abstractmethod
    def terms(self, function: Callable[[Tensor], Tensor]) -> Iterable[tuple[Tensor, Geometry]]:
        """The maps function(term) [h, w] of all terms [C, h, w] of the score that have a place on
        the picture, those on one grid added up, and where that grid lies; first the input's.

        The terms are input times gradient, and for every call of a module with a bias that bias
        times the gradient of what the call gave.
        """


@dataclass(frozen=True)
class GuidedGradient:
    """One explanation's gradient on a layer, and the guided one on the network input.

    layers: the gradient (of one row) on each map that is looked at, and where that lies.
    """

    layers: Sequence[tuple[MapGradient, Geometry]]
    pixels: PixelGradient


@METHODS.register("fullgrad")
@looks_at(Evidence.PIXELS)
def fullgrad(evidence: PixelGradient) -> Tensor:
    """psi(input gradient x input) + the sum over layers of psi(bias gradient x bias), each summed
    over its channels: [1, h, w].

    psi is the absolute value, stretched from its minimum to its maximum over all channels of a
    layer together, then upsampled. The paper's formula has psi work on each channel, its authors'
    code stretches a layer's channels together, pytorch-grad-cam each on its own: so that a channel
    with next to no gradient weighs as much as any other. Here it is the authors' code, except that
    a layer of no contrast counts nothing (no epsilon: gradients of probabilities may be tiny) and
    that a map is upsampled to where the layer's cells lie (they align the corners). A head that
    runs on several maps is a layer for each. What has no place on the picture is left out: the
    biases of fully connected layers, as in the paper, those behind RoI pooling, and layers of one
    cell.

    The terms add up to the score only of a piecewise linear network. GroupNorm and LayerNorm divide
    by statistics of the input, so with them, SiLU or attention that holds no more; and constants
    that functions add, rather than modules with a bias, are not seen.
    """
    terms = [coarse(heatmap.cpu(), own) for heatmap, own in evidence.terms(_contrast)]
    first, geometry = terms[0]
    return added_on(terms, geometry, *first.shape)[None]


def _contrast(term: Tensor) -> Tensor:
    """The absolute value of [C, h, w], minimum 0 and maximum 1, summed over channels."""
    magnitude = term.abs()
    low, high = magnitude.aminmax()
    summed = (magnitude - low).sum(0) / (high - low)
    return torch.where(high > low, summed, torch.zeros_like(summed))


@METHODS.register("guided")
@looks_at(Evidence.PIXELS)
def guided(evidence: PixelGradient) -> Tensor:
    """Guided backpropagation, the largest magnitude over the colours: [1, h, w].

    The paper shows the signed gradient. For a heatmap its magnitude is taken, as Simonyan et al.
    (2014) do: the sign says whether a pixel should be brighter or darker, not whether it counts.
    Without an nn.ReLU (a network of SiLU or GELU) it is the plain gradient.
    """
    return _coarse_magnitude(evidence.guided(), evidence.frame)


@METHODS.register("guidedgradcam")
@looks_at(Evidence.GUIDED)
def guidedgradcam(evidence: GuidedGradient) -> Tensor:
    """Guided backpropagation times Grad-CAM of the layer, upsampled, the largest magnitude over the
    colours: [1, h, w].

    Grad-CAM is cut at zero before, as in the paper; what lies on several maps is added up on the
    finest of them first.
    """
    maps = [(gradcam(gradient)[0].cpu(), geometry) for gradient, geometry in evidence.layers]
    finest, geometry = max(maps, key=lambda each: each[0].numel())
    total = added_on(maps, geometry, *finest.shape)
    frame = evidence.pixels.frame
    gradient = guided_gradcam(evidence.pixels.guided(), total.clamp(min=0), geometry, frame)
    return _coarse_magnitude(gradient, frame)


def _coarse_magnitude(gradient: Tensor, frame: Geometry) -> Tensor:
    return coarse(gradient.abs().amax(0), frame)[0][None]


def coarse(heatmap: Tensor, geometry: Geometry) -> tuple[Tensor, Geometry]:
    """A map [h, w] and its geometry; the means of the smallest square blocks of its cells that are
    at most MOST_CELLS, if it has more."""
    height, width = heatmap.shape
    side = block_side(height, width)
    if side == 1:
        return heatmap, geometry
    # The last block may reach over the border: what is off the map does not count.
    blocks = F.avg_pool2d(heatmap[None], side, ceil_mode=True, count_include_pad=False)[0]
    return blocks, on_blocks(geometry, height, width)


def block_side(height: int, width: int) -> int:
    """How many cells wide the blocks of a map of height x width cells are in `coarse`."""
    side = max(1, math.isqrt(height * width // MOST_CELLS))
    while math.ceil(height / side) * math.ceil(width / side) > MOST_CELLS:
        side += 1
    return side


def on_blocks(geometry: Geometry, height: int, width: int) -> Geometry:
    """The geometry of those blocks, of the map's geometry."""
    side = block_side(height, width)
    return replace(
        geometry,
        frame_width=geometry.frame_width / width * side * math.ceil(width / side),
        frame_height=geometry.frame_height / height * side * math.ceil(height / side),
    )

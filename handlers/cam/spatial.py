"""Methods that weigh whole channels, and then each channel's cells by where its gradient is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from handlers.cam.gradient import MapGradient, Window, over_cells
from handlers.cam.registry import METHODS
from handlers.cam.weighting import gradcam_plus_plus_weight

# Of a gradient that is a single cell the spread is nothing; a Gaussian needs some.
LEAST_SPREAD = 0.5
# Cells count as the peak within this share of it: pooling spreads one gradient evenly over several.
PEAK = 0.999


@METHODS.register("ssgradcam")
def ssgradcam(gradient: MapGradient) -> Tensor:
    """SSGrad-CAM (Yamauchi and Ishikawa, ICIP 2022): sum_k mean(g_k) A_k S_k with the space map
    S_k = |g_k| / max |g_k|, each channel's own. A channel without a gradient weighs nothing.

    "Grad-CAM's map times the space map", as it is put where it is summed up, reads as one S times
    the finished sum. Chosen is S_k inside it, as code after the authors' equations has it: |g_k| is
    one channel's, which so counts where it acts itself and not where another does.

    The paper multiplies maps of a whole network's last layer and says neither which level of a
    pyramid is meant nor what a maximum of zero gives: here it is the level that was asked for, and
    nothing. It normalises the result for display; here that is left to whoever draws it.
    """
    weights = gradient.mean()
    return _with_space_maps(gradient, lambda window: weights[window.index])


@METHODS.register("ssgradcam++")
def ssgradcam_plus_plus(gradient: MapGradient) -> Tensor:
    """SSGrad-CAM++ (Yamauchi, CVPR workshops 2024): the weights of Grad-CAM++, and the space maps
    of SSGrad-CAM.

    The paper takes its "weighted combination of the gradient map" from Grad-CAM++; taken here is
    this project's `gradcam++`, with its denominator for signed maps.
    """
    weight = gradcam_plus_plus_weight(gradient)
    # A window has all of its detections' gradients, so that it is enough for their weights.
    return _with_space_maps(gradient, lambda window: over_cells(weight(window.gradient), torch.sum))


def _with_space_maps(gradient: MapGradient, weights: Callable[[Window], Tensor]) -> Tensor:
    """sum_k w_k A_k S_k with the weights [n, C] of a window's detections: maps [N, h, w]."""
    _, height, width = gradient.activation.shape
    maps = gradient.gradient.new_zeros(len(gradient), height * width)

    def add(window: Window) -> None:
        strength = window.gradient.abs()
        scale = weights(window) / _or_one(over_cells(strength, torch.amax))
        values = scale[:, None] @ (window.activation * strength).flatten(2)
        window.add_to(maps, values[:, 0])

    gradient.for_windows(add)
    return maps.view(-1, height, width)


@METHODS.register("gcame")
def gcame(gradient: MapGradient) -> Tensor:
    """G-CAME (Nguyen et al. 2023, arXiv 2306.03400): sum_k mean(g_k) Gauss_k A_k, where Gauss_k is
    a Gaussian of height 1 around the cell in which |g_k| is largest (the middle of such cells).

    The paper sets its width by the logarithm of the gradient, which changes with the unit of the
    score. Taken here is the spread of |g_k| itself, the root mean square of its distance from the
    peak along one axis, in cells, at least 0.5. Cells on which the score does not depend (no
    channel has a gradient there) are left out.
    """
    _, height, width = gradient.activation.shape
    weights = gradient.mean()
    maps = gradient.gradient.new_zeros(len(gradient), height * width)

    def add(window: Window) -> None:
        # Channels last: what follows is of each channel alone, and is fastest side by side.
        strength = window.gradient.movedim(1, -1).abs().contiguous()
        rows, columns = _gaussians(strength, window.cells, width)
        rows *= weights[window.index][:, None]
        values = window.activation.movedim(1, -1).contiguous()
        values = (values * rows[:, :, None]).mul_(columns[:, None]).sum(-1)
        window.add_to(maps, (values * (strength.sum(-1) > 0)).flatten(1))

    gradient.for_windows(add)
    return maps.view(-1, height, width)


def _gaussians(strength: Tensor, cells: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Each channel's Gaussian along the rows [n, a, C] and the columns [n, b, C] of a window, of
    which it is the product; strength: |g| [n, a, b, C], cells: the window's, width: of the map."""
    # Padding cells have no gradient; they are a peak only where nothing is.
    # In place, since to make numbers of truths takes six times as long.
    peak = strength.clone().ge_(PEAK * strength.amax((1, 2), keepdim=True))
    cells = cells.view(-1, *strength.shape[1:3])
    away = []
    spread = total = torch.zeros_like(strength[:, 0, 0])
    for place, across in ((cells[:, :, 0] // width, 2), (cells[:, 0] % width, 1)):
        along, share = place[..., None].to(strength), peak.sum(across)
        middle = (share * along).sum(1, keepdim=True) / share.sum(1, keepdim=True)
        away.append((along - middle) ** 2)
        mass = strength.sum(across)
        spread, total = spread + (mass * away[-1]).sum(1), mass.sum(1)
    variance = (spread / (2 * _or_one(total))).clamp(min=LEAST_SPREAD**2)[:, None]
    rows, columns = (torch.exp(-each / (2 * variance)) for each in away)
    return rows, columns


def _or_one(values: Tensor) -> Tensor:
    return values.masked_fill(values == 0, 1)

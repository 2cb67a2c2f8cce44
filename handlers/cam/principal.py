"""Methods that take the first principal component of a map (Muhammad and Yeasin 2020).

Channels are the variables, cells the observations, centred. The sign of a principal component is
arbitrary: it is chosen so that the map correlates with what it was computed from, summed over
channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.cam.gradient import MapGradient
from handlers.cam.registry import METHODS, Evidence, looks_at


@METHODS.register("eigencam")
@looks_at(Evidence.ACTIVATION)
def eigencam(gradient: MapGradient) -> Tensor:
    """EigenCAM: the first principal component of A. It knows neither class nor box: all detections
    that a map emitted share one picture."""
    channels, height, width = gradient.activation.shape
    cells = gradient.activation.reshape(channels, -1).T
    centred = cells - cells.mean(0)
    projection = centred @ _first_component(centred)
    if projection @ centred.sum(1) < 0:
        projection = -projection
    return projection.view(1, height, width).repeat(len(gradient), 1, 1)


@METHODS.register("eigengradcam")
def eigengradcam(gradient: MapGradient) -> Tensor:
    """EigenGradCAM: the first principal component of g A, which is zero outside the footprint."""
    _, height, width = gradient.activation.shape
    number = height * width
    maps = gradient.gradient.new_zeros(len(gradient), number)
    for window in gradient.windows():
        cells = (window.activation * window.gradient).flatten(2).transpose(1, 2)  # [n, a * b, C]
        mean = cells.sum(1) / number
        component = _first_component(_centred(cells, mean, number))
        offset = (mean * component).sum(-1, keepdim=True)
        inside = (cells @ component[:, :, None])[..., 0]
        # Correlation with the sum over channels; the centred values outside add offset times mean.
        summed = cells.sum(-1)
        agreement = (inside * summed).sum(-1) - number * offset[:, 0] * mean.sum(-1)
        sign = torch.where(agreement < 0, -1.0, 1.0)[:, None]
        maps[window.index] = (-offset * sign).expand(-1, number)
        window.add_to(maps, inside * sign)
    return maps.view(-1, height, width)


def _centred(cells: Tensor, mean: Tensor, number: int) -> Tensor:
    """Rows with the covariance of all `number` cells of the map, of which all but `cells`
    [n, R, C] are zero before centring: equal rows, so one row of their weight stands for them.
    (Padding cells are among `cells`, and zero like those outside.)"""
    rows = cells - mean[:, None]
    real = rows.shape[1]
    if real >= number:
        return rows
    return torch.cat([rows, -((number - real) ** 0.5) * mean[:, None]], 1)


def _first_component(rows: Tensor) -> Tensor:
    """The direction [..., C] in which centred rows [..., R, C] vary most, of length 1."""
    rows = rows.double()
    many, channels = rows.shape[-2:]
    if many >= channels:
        _, vectors = torch.linalg.eigh(rows.mT @ rows)
        component: Tensor = vectors[..., -1]
        return component.float()
    # The other side of the same singular value decomposition, and the smaller one.
    _, vectors = torch.linalg.eigh(rows @ rows.mT)
    component = (rows.mT @ vectors[..., -1:])[..., 0]
    return torch.nn.functional.normalize(component, dim=-1).float()

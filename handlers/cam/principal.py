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

# Products with a matrix before its first eigenvector is read off, and the share of its eigenvalue
# by which that may then be off.
LANCZOS_STEPS = 24
RESIDUAL = 1e-6
# How much of a fixed random direction the first vector has; shorter vectors are rounding errors.
STRAY = 1e-3
TINY = 1e-14


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
        return _leading(rows.mT @ rows).float()
    # The other side of the same singular value decomposition, and the smaller one.
    component = (rows.mT @ _leading(rows @ rows.mT)[..., None])[..., 0]
    return torch.nn.functional.normalize(component, dim=-1).float()


def _leading(gram: Tensor) -> Tensor:
    """The eigenvector [..., n] of the largest eigenvalue of positive semi-definite [..., n, n].

    Lanczos' method: the best one in the space of what a few products with the matrix give, which is
    far cheaper than all eigenvectors. Where that has not converged, all are computed.
    """
    if not bool(gram.isfinite().all()):
        return gram[..., 0] * float("nan")  # the map is refused, with the layer's name
    if gram.shape[-1] <= 2 * LANCZOS_STEPS:
        return _leading_of_all(gram)
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    trace = diagonal.sum(-1)[..., None, None]
    gram = gram / trace.masked_fill(trace == 0, 1)
    # A column alone may be at right angles to what is looked for, and never leave there.
    column = gram.take_along_dim(diagonal.argmax(-1)[..., None, None], -1)
    generator = torch.Generator().manual_seed(0)
    stray = torch.randn(gram.shape[-1], 1, generator=generator, dtype=gram.dtype).to(gram.device)
    vector = column / column.norm(dim=-2, keepdim=True).clamp(min=TINY) + STRAY * stray
    basis: Tensor | None = None
    for _ in range(LANCZOS_STEPS):
        if basis is not None:
            for _ in range(2):  # once leaves what rounding brings back
                vector = vector - basis @ (basis.mT @ vector)
        length = vector.norm(dim=-2, keepdim=True)
        if bool((length < TINY).any()):  # there are no more directions
            return _leading_of_all(gram)
        vector = vector / length
        basis = vector if basis is None else torch.cat([basis, vector], -1)
        vector = gram @ vector
    assert basis is not None  # there are steps
    values, inner = torch.linalg.eigh(basis.mT @ gram @ basis)
    found = basis @ inner[..., -1:]
    residual = (gram @ found - values[..., -1:, None] * found).norm(dim=(-2, -1))
    if bool((residual <= RESIDUAL * values[..., -1]).all()):
        component: Tensor = found[..., 0]
        return component
    return _leading_of_all(gram)


def _leading_of_all(gram: Tensor) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(gram)[1]
    return vectors[..., -1]

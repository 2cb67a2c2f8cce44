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

# Lanczos' steps, after which of them it is looked whether they were enough, and the angle in
# radians by which the component may then be off.
LANCZOS_STEPS = 24
LOOKS = (8, 12, 16, LANCZOS_STEPS)
ANGLE = 1e-4
# What float32 makes of the products, as a share of the largest eigenvalue.
ROUNDING = 3e-7
# Vectors as short as this are none: there are no more directions.
TINY = 1e-35
# Traces of which neither the smallest products nor the largest leave float32's range.
TRACES = (1e-25, 1e30)


@METHODS.register("eigencam")
@looks_at(Evidence.ACTIVATION)
def eigencam(gradient: MapGradient) -> Tensor:
    """EigenCAM: the first principal component of A. It knows neither class nor box: all detections
    that a map emitted share one picture."""
    channels, height, width = gradient.activation.shape
    values = gradient.activation.reshape(1, channels, -1)
    mean = values.mean(-1)
    centred = values - mean[..., None]
    projection = (_first_component(centred, mean, 0)[:, None] @ centred)[0, 0]
    if projection @ centred[0].sum(0) < 0:
        projection = -projection
    return projection.view(1, height, width).repeat(len(gradient), 1, 1)


@METHODS.register("eigengradcam")
def eigengradcam(gradient: MapGradient) -> Tensor:
    """EigenGradCAM: the first principal component of g A, which is zero outside the footprint."""
    _, height, width = gradient.activation.shape
    number = height * width
    maps = gradient.gradient.new_zeros(len(gradient), number)
    for window in gradient.windows():
        values = (window.activation * window.gradient).flatten(2)  # [n, C, a * b]
        mean = values.sum(-1) / number
        component = _first_component(values - mean[..., None], mean, number - values.shape[-1])
        offset = (mean * component).sum(-1, keepdim=True)
        inside = (component[:, None] @ values)[:, 0]
        # Correlation with the sum over channels; the centred values outside add offset times mean.
        agreement = (inside * values.sum(1)).sum(-1) - number * offset[:, 0] * mean.sum(-1)
        sign = torch.where(agreement < 0, -1.0, 1.0)[:, None]
        maps[window.index] = -offset * sign
        window.add_to(maps, inside * sign)
    return maps.view(-1, height, width)


def _first_component(centred: Tensor, mean: Tensor, outside: int) -> Tensor:
    """The direction [n, C] of length 1 in which the cells of a map vary most.

    centred: [n, C, R], less their mean [n, C] over the whole map; outside: how many more cells the
    map has, all of them zero before centring. (Padding cells are among the R, and zero likewise. If
    there are more of them than cells outside, outside is negative, and takes them off again.)
    """
    if outside >= 0 and centred.shape[2] + 1 < centred.shape[1]:
        # The other side of the same singular value decomposition, and the smaller one.
        rest = -(outside**0.5) * mean[..., None]
        columns = torch.cat([centred, rest], -1) if outside else centred
        component = (columns @ _leading(columns.mT, mean, 0)[..., None])[..., 0]
        return torch.nn.functional.normalize(component, dim=-1)
    return _leading(centred, mean, outside)


def _leading(rows: Tensor, mean: Tensor, outside: int) -> Tensor:
    """The eigenvector [n, k] of the largest eigenvalue of rows @ rows^T + outside * mean @ mean^T;
    rows: [n, k, m], mean: [n, k].

    Lanczos' method in float32: the best one in the space of what a few products with the matrix
    give, which is far cheaper than all eigenvectors. Where it may be off by more than ANGLE (by
    Davis and Kahan's theorem: the residual over the gap to the next eigenvalue), all eigenvectors
    are computed, in float64.
    """
    gram = _gram(rows, mean, outside)
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    found, sure = torch.zeros_like(gram[..., 0]), trace == 0
    usual = (trace > TRACES[0]) & (trace < TRACES[1])
    if gram.shape[-1] > 2 * LANCZOS_STEPS and bool(usual.any()):
        found[usual], sure[usual] = _lanczos(gram[usual])
    for place in torch.where(~sure)[0].tolist():
        exact = _gram(rows[place].double(), mean[place].double(), outside)
        if bool(exact.isfinite().all()):
            found[place] = torch.linalg.eigh(exact)[1][:, -1].float()
        else:
            found[place] = torch.nan  # the map is refused, with the layer's name
    return found


def _gram(rows: Tensor, mean: Tensor, outside: int) -> Tensor:
    gram = rows @ rows.mT
    return gram + outside * mean[..., None] * mean[..., None, :] if outside else gram


def _lanczos(gram: Tensor) -> tuple[Tensor, Tensor]:
    """For each of [N, n, n] the leading eigenvector [N, n], and whether it is within ANGLE."""
    number, size = gram.shape[:2]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, 1, generator=generator, dtype=gram.dtype).to(gram.device)
    vector = gram @ start
    # A vector in a row each: what was taken, and its product with the matrix.
    basis = gram.new_zeros(number, LANCZOS_STEPS, size)
    products = torch.zeros_like(basis)
    for step in range(LANCZOS_STEPS):
        before = basis[:, :step]
        for _ in range(2):  # once leaves what rounding brings back
            vector = vector - before.mT @ (before @ vector)
        vector = torch.nn.functional.normalize(vector, dim=-2, eps=TINY)
        basis[:, step] = vector[..., 0]
        vector = gram @ vector
        products[:, step] = vector[..., 0]
        if step + 1 not in LOOKS:
            continue
        own, theirs = basis[:, : step + 1], products[:, : step + 1]
        values, inner = torch.linalg.eigh((own @ theirs.mT).double())
        weights = inner[:, None, :, -1].to(gram.dtype)
        found, product = ((weights @ each)[:, 0] for each in (own, theirs))
        largest = (found * product).sum(-1)
        error = (product - largest[:, None] * found).norm(dim=-1) + ROUNDING * largest
        sure = error <= ANGLE * (largest - values[:, -2])
        if bool(sure.all()):
            break
    return found, sure

"""Methods that take the first principal component of a map (Muhammad and Yeasin 2020).

Channels are the variables, cells the observations, centred. The paper projects A on the first right
singular vector of A, calls that the first principal component and says nothing of centring; only of
centred values is it one. They are centred here, as by pytorch-grad-cam: otherwise the map is much
like the mean of what is there, instead of where cells differ most. The sign of a principal
component is arbitrary: it is chosen so that the map correlates with what it was computed from,
summed over channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.cam.gradient import WINDOW_BUDGET, MapGradient, Window
from handlers.cam.registry import METHODS, Evidence, looks_at

# Lanczos' steps, after which of them it is looked whether they were enough, and the angle in
# radians by which the component may then be off.
LANCZOS_STEPS = 24
LOOKS = (8, 12, 16, LANCZOS_STEPS)
ANGLE = 1e-4
# What float32 makes of products over many cells, as a share of the largest eigenvalue, and what it
# leaves of a residual.
ROUNDING, CONVERGED = 3e-6, 1e-5
# Traces of Gram matrices of which all that matters is well within float32's range.
TRACES = (1e-25, 1e30)


@METHODS.register("eigencam")
@looks_at(Evidence.ACTIVATION)
def eigencam(gradient: MapGradient) -> Tensor:
    """EigenCAM: the first principal component of A. It knows neither class nor box: all detections
    that a map emitted share one picture."""
    channels, height, width = gradient.activation.shape
    cells = Cells.of(gradient.activation.reshape(1, channels, -1), height * width)
    (component,) = first_components([cells])
    projection = (component[:, None] @ cells.centred)[0, 0]
    summed = cells.centred[0].sum(0)
    if _at_most_one(projection) @ _at_most_one(summed) < 0:
        projection = -projection
    return projection.view(1, height, width).repeat(len(gradient), 1, 1)


@METHODS.register("eigengradcam")
def eigengradcam(gradient: MapGradient) -> Tensor:
    """EigenGradCAM: the first principal component of g A, which is zero outside the footprint."""
    _, height, width = gradient.activation.shape
    number = height * width
    maps = gradient.gradient.new_zeros(len(gradient), number)
    for windows in _together(gradient.windows()):
        group = [Cells.of((each.activation * each.gradient).flatten(2), number) for each in windows]
        for window, cells, component in zip(windows, group, first_components(group), strict=True):
            offset = (cells.mean * component).sum(-1, keepdim=True)
            inside = (component[:, None] @ cells.values)[:, 0]
            # Correlation with the sum over channels, which is zero outside.
            summed = _at_most_one(cells.values.sum(1))
            agreement = ((inside - offset) * summed).sum(-1)
            sign = torch.where(agreement < 0, -1.0, 1.0)[:, None]
            maps[window.index] = -offset * sign
            window.add_to(maps, inside * sign)
    return maps.view(-1, height, width)


def _at_most_one(vectors: Tensor) -> Tensor:
    """Vectors [n, k] over their largest magnitudes, so that no square leaves float32's range."""
    largest = vectors.abs().amax(-1, keepdim=True)
    return vectors / largest.masked_fill(largest == 0, 1)


def _together(windows: Iterator[Window]) -> Iterator[list[Window]]:
    """As many at a time as WINDOW_BUDGET has room for with what is computed of them."""
    group: list[Window] = []
    floats = 0
    for window in windows:
        number, channels = window.gradient.shape[:2]
        own = 4 * window.gradient.numel() + number * channels**2
        if group and floats + own > WINDOW_BUDGET:
            yield group
            group, floats = [], 0
        group.append(window)
        floats += own
    if group:
        yield group


@dataclass(frozen=True)
class Cells:
    """Cells of maps.

    values: [n, C, R]; mean: [n, C], over all cells of the map, of which those that are not among
    the R are zero; outside: how many these are. centred: values less their mean.
    """

    values: Tensor
    mean: Tensor
    centred: Tensor
    outside: int

    @classmethod
    def of(cls, values: Tensor, number: int) -> Cells:
        """Of values [n, C, R] of maps of so many cells."""
        mean = values.sum(-1) / number
        return cls(values, mean, values - mean[..., None], number - values.shape[-1])

    @property
    def few(self) -> bool:
        """Fewer cells than channels: the other side of the singular value decomposition, from cells
        to cells, is the smaller one."""
        return self.values.shape[2] + 1 < self.values.shape[1]

    def columns(self) -> Tensor:
        """Centred cells, and one column that weighs as much as all cells outside."""
        if not self.outside:
            return self.centred
        return torch.cat([self.centred, -(self.outside**0.5) * self.mean[..., None]], -1)

    def gram(self) -> Tensor:
        """The products [n, k, k] of channels with channels, or if `few` of cells with cells."""
        if self.few:
            columns = self.columns()
            return columns.mT @ columns
        gram, mean = self.centred @ self.centred.mT, self.mean
        return gram + self.outside * mean[..., None] * mean[..., None, :] if self.outside else gram

    def direction(self, leading: Tensor) -> Tensor:
        """Of channels [n, C], from eigenvectors [n, k] of `gram`."""
        if not self.few:
            return leading
        component = (self.columns() @ leading[..., None])[..., 0]
        return torch.nn.functional.normalize(_at_most_one(component), dim=-1)

    def exact(self, places: Tensor) -> Cells:
        """Some of the n, in float64."""
        values = self.values[places].double()
        return Cells.of(values, values.shape[2] + self.outside)


def first_components(several: Sequence[Cells]) -> list[Tensor]:
    """For each the directions [n, C] of length 1 in which cells vary most (0 where none does)."""
    grams = [cells.gram() for cells in several]
    by_size: dict[int, list[int]] = {}
    for place, gram in enumerate(grams):
        by_size.setdefault(gram.shape[-1], []).append(place)
    found: dict[int, Tensor] = {}
    for places in by_size.values():
        several_sure = _leading(torch.cat([grams[place] for place in places]))
        lengths = [len(grams[place]) for place in places]
        parts = (each.split(lengths) for each in several_sure)
        for place, leading, sure in zip(places, *parts, strict=True):
            unsure = torch.where(~sure)[0]
            if len(unsure):
                leading[unsure] = _leading_of_all(several[place].exact(unsure).gram())
            found[place] = several[place].direction(leading)
    return [found[place] for place in range(len(several))]


def _leading_of_all(gram: Tensor) -> Tensor:
    """The eigenvectors [n, k] of the largest eigenvalues of float64 [n, k, k], by way of all; 0 of
    nothing, NaN of what is not finite, so that the map is refused, with the layer's name."""
    finite = gram.isfinite().all(-1).all(-1)
    vectors = torch.linalg.eigh(gram.where(finite[:, None, None], 0))[1][..., -1]
    vectors = vectors * (gram != 0).any(-1).any(-1)[:, None]
    found: Tensor = vectors.where(finite[:, None], torch.nan).float()
    return found


def _leading(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvectors [n, k] of the largest eigenvalues of gram [n, k, k], and for each whether it
    is within ANGLE by Davis and Kahan's theorem: the residual over the gap to the next eigenvalue.
    Two that are close look like one for some steps, and their vector like any between theirs; its
    residual then is half of what they lie apart. So the residual has to be as small as float32
    allows as well (of eigenvalues that are closer than that the vector is any between theirs).

    Lanczos' method: the best vector in the space of what a few products with the matrix give, which
    is far cheaper than all eigenvectors; not for small matrices, nor where float32's range ends.
    """
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    usual = (trace > TRACES[0]) & (trace < TRACES[1])
    found, sure = torch.zeros_like(gram[..., 0]), torch.zeros_like(usual)
    if gram.shape[-1] > 2 * LANCZOS_STEPS and bool(usual.any()):
        found[usual], sure[usual] = _lanczos(gram[usual] / trace[usual, None, None])
    return found, sure


def _lanczos(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The same of matrices [N, n, n] of trace 1."""
    number, size = gram.shape[:2]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, 1, generator=generator, dtype=gram.dtype).to(gram.device)
    vector = gram @ start
    found, sure = gram[..., 0], gram.new_zeros(number, dtype=torch.bool)
    # A vector in a row each: what was taken, and its product with the matrix.
    basis = gram.new_zeros(number, LANCZOS_STEPS, size)
    products = torch.zeros_like(basis)
    for step in range(LANCZOS_STEPS):
        before = basis[:, :step]
        for _ in range(2):  # once leaves what rounding brings back
            vector = vector - before.mT @ (before @ vector)
        vector = torch.nn.functional.normalize(vector, dim=-2)
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
        residual = (product - largest[:, None] * found).norm(dim=-1)
        error = residual + ROUNDING * largest
        # A vector of length 0 would be no vector.
        sure = (found.norm(dim=-1) - 1).abs() < 1e-3
        sure &= (residual <= CONVERGED * largest) & (error <= ANGLE * (largest - values[:, -2]))
        if bool(sure.all()):
            break
    return found, sure

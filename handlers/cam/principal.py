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
from handlers.cam.threads import one_thread_if_small

# The angle in radians by which a component may be off.
ANGLE = 1e-4
# Matrices up to this size are decomposed whole, which takes no longer.
SMALL = 48
# Traces of Gram matrices of which all that matters is well within float32's range.
TRACES = (1e-25, 1e30)


@dataclass(frozen=True)
class Accuracy:
    """Of what is computed in one type of number, with Lanczos' method.

    looks: after how many steps it is looked whether they were enough. rounding, converged: shares
    of the largest eigenvalue; what products over many cells are off by, and the largest residual
    that is taken. Two eigenvalues closer than that look like one, and any vector between theirs
    may come.
    """

    looks: tuple[int, ...]
    rounding: float
    converged: float


# Of a hundred boxes a few have two eigenvalues that are too close for float32.
ACCURACIES = {
    torch.float32: Accuracy((12, 16, 24), 3e-6, 1e-6),
    torch.float64: Accuracy((24, 36, 48), 1e-13, 1e-9),
}


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

    def seen(window: Window) -> tuple[Window, Cells]:
        return window, Cells.of((window.activation * window.gradient).flatten(2), number)

    def project(window: Window, cells: Cells, component: Tensor) -> None:
        offset = (cells.mean * component).sum(-1, keepdim=True)
        inside = (component[:, None] @ cells.values)[:, 0]
        # Correlation with the sum over channels, which is zero outside.
        summed = _at_most_one(cells.values.sum(1))
        agreement = ((inside - offset) * summed).sum(-1)
        sign = torch.where(agreement < 0, -1.0, 1.0)[:, None]
        maps[window.index] = -offset * sign
        window.add_to(maps, inside * sign)

    for group in _together(gradient.each_window(seen)):
        components = first_components([cells for _, cells in group])
        for (window, cells), component in zip(group, components, strict=True):
            with one_thread_if_small(cells.values):
                project(window, cells, component)
    return maps.view(-1, height, width)


def _at_most_one(vectors: Tensor) -> Tensor:
    """Vectors [n, k] over their largest magnitudes, so that no square leaves float32's range."""
    largest = vectors.abs().amax(-1, keepdim=True)
    return vectors / largest.masked_fill(largest == 0, 1)


def _together(several: Iterator[tuple[Window, Cells]]) -> Iterator[list[tuple[Window, Cells]]]:
    """As many at a time as WINDOW_BUDGET has room for with what is computed of them; of those that
    run side by side some more are there already."""
    group: list[tuple[Window, Cells]] = []
    floats = 0
    for window, cells in several:
        number, channels = window.gradient.shape[:2]
        own = 4 * window.gradient.numel() + number * channels**2
        if group and floats + own > WINDOW_BUDGET:
            yield group
            group, floats = [], 0
        group.append((window, cells))
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
        """Far fewer cells than channels: the other side of the singular value decomposition, from
        cells to cells, is the smaller one. Of not so many fewer it would save less than is saved by
        treating maps of many sizes as one batch."""
        return 2 * (self.values.shape[2] + 1) < self.values.shape[1]

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
        if self.outside:
            gram.baddbmm_(mean[..., None], mean[:, None], alpha=self.outside)
        return gram

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
                exact = _leading_of_all(several[place].exact(unsure).gram())
                leading[unsure] = exact.to(leading.dtype)
            found[place] = several[place].direction(leading)
    return [found[place] for place in range(len(several))]


def _leading_of_all(gram: Tensor) -> Tensor:
    """The eigenvectors [n, k] of the largest eigenvalues of float64 [n, k, k], by way of all where
    there is no other; 0 of nothing, NaN of what is not finite, so that the map is refused, with the
    layer's name."""
    finite = gram.isfinite().all(-1).all(-1)
    gram = gram.where(finite[:, None, None], 0)
    vectors, sure = _leading(gram)
    if not bool(sure.all()):
        vectors[~sure] = torch.linalg.eigh(gram[~sure])[1][..., -1]
    vectors = vectors * (gram != 0).any(-1).any(-1)[:, None]
    found: Tensor = vectors.where(finite[:, None], torch.nan)
    return found


def _leading(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvectors [n, k] of the largest eigenvalues of gram [n, k, k], and for each whether it
    is within ANGLE by Davis and Kahan's theorem: the residual over the gap to the next eigenvalue.
    Two that are close look like one for some steps, and their vector like any between theirs; its
    residual then is half of what they lie apart. So the residual has to be small as well, however
    large the gap.

    Lanczos' method: the best vector in the space of what a few products with the matrix give, which
    is far cheaper than all eigenvectors; not for small matrices, nor where float32's range ends.
    """
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    usual = (trace > TRACES[0]) & (trace < TRACES[1])
    found, sure = torch.zeros_like(gram[..., 0]), torch.zeros_like(usual)
    known = gram.dtype in ACCURACIES  # of half precision all eigenvectors are asked for
    if known and gram.shape[-1] > SMALL:
        if bool(usual.all()):
            return _lanczos(gram, trace)
        if bool(usual.any()):
            found[usual], sure[usual] = _lanczos(gram[usual], trace[usual])
    return found, sure


def _lanczos(gram: Tensor, trace: Tensor) -> tuple[Tensor, Tensor]:
    """The same of matrices [N, n, n] over their traces [N]."""
    number, size = gram.shape[:2]
    scale = trace[:, None, None]
    looks = ACCURACIES[gram.dtype].looks
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, size, generator=generator, dtype=gram.dtype).to(gram.device)
    found, sure = torch.zeros_like(gram[:, 0]), gram.new_zeros(number, dtype=torch.bool)
    active = torch.arange(number, device=gram.device)  # those that need more steps
    # Rows throughout: a batch of rows times matrices is ten times faster than one of matrices times
    # columns, and these are symmetric.
    basis = gram.new_zeros(number, looks[-1], size)
    products = torch.zeros_like(basis)  # with the matrix
    row = start @ gram / scale
    for step in range(looks[-1]):
        before = basis[:, :step]
        with one_thread_if_small(basis):
            for _ in range(2):  # once leaves what rounding brings back
                row = row - (row @ before.mT) @ before
            row = torch.nn.functional.normalize(row, dim=-1)
            basis[:, step] = row[:, 0]
        row = row @ gram / scale
        products[:, step] = row[:, 0]
        if step + 1 not in looks:
            continue
        found[active], enough = _best(basis[:, : step + 1], products[:, : step + 1])
        sure[active] = enough
        if bool(enough.all()):
            break
        more = torch.where(~enough)[0]
        if len(more) < len(active):
            active, gram, scale, row = active[more], gram[more], scale[more], row[more]
            basis, products = basis[more], products[more]
    return found, sure


def _best(basis: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """Of bases [n, steps, k] and their products with matrices the vectors [n, k] that come nearest
    to the first eigenvectors, and for each whether that is near enough."""
    accuracy = ACCURACIES[basis.dtype]
    values, inner = torch.linalg.eigh((basis @ products.mT).double())
    weights = inner[:, None, :, -1].to(basis.dtype)
    found, product = ((weights @ each)[:, 0] for each in (basis, products))
    largest = (found * product).sum(-1)
    residual = (product - largest[:, None] * found).norm(dim=-1)
    error = residual + accuracy.rounding * largest
    # A vector of length 0 would be no vector.
    sure = (found.norm(dim=-1) - 1).abs() < 1e-3
    sure &= residual <= accuracy.converged * largest
    sure &= error <= ANGLE * (largest - values[:, -2])
    return found, sure

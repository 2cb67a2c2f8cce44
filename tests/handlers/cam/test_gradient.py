from __future__ import annotations

import pytest
import torch
from torch import Tensor

import handlers.cam.gradient
from handlers.cam import weighting
from handlers.cam.gradient import DenseGradient, LocalGradient, MapGradient
from handlers.cam.registry import METHODS
from handlers.cam.weighting import gradcam_plus_plus_weights
from tests.handlers.slow_twin import FORMULAS


def gradients(form: str) -> tuple[MapGradient, Tensor]:
    """A gradient of six detections and the same written out: [6, C, h, w]."""
    generator = torch.Generator().manual_seed(3)
    height, width = (3, 4) if form == "local, small map" else (9, 12)
    activation = torch.randn(5, height, width, generator=generator)
    if form == "dense":
        dense = torch.randn(6, 5, height, width, generator=generator)
        return DenseGradient(activation, dense), dense
    # Squares of 5 x 5, some over a corner or an edge of the map, one wholly inside.
    top = torch.tensor([-2, -1, 0, 2, height - 3, height - 1])
    left = torch.tensor([-2, 3, width - 4, 4, -1, width - 2])
    squares = torch.randn(6, 5, 5, 5, generator=generator)
    dense, shown = torch.zeros(6, 5, height, width), torch.zeros_like(squares)
    for n in range(6):
        for y in range(5):
            for x in range(5):
                row, column = int(top[n]) + y, int(left[n]) + x
                if 0 <= row < height and 0 <= column < width:
                    dense[n, :, row, column] = squares[n, :, y, x]
                    shown[n, :, y, x] = activation[:, row, column]
                else:
                    squares[n, :, y, x] = 0
    cut = shown if form == "local, cut out" else None
    return LocalGradient(activation, squares, top, left, cut), dense


@pytest.mark.parametrize("form", ["dense", "local", "local, small map", "local, cut out"])
@pytest.mark.parametrize("budget", [1, 10**9])
def test_every_form_equals_the_dense_gradient(
    form: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers.cam.gradient, "WINDOW_BUDGET", budget)
    ours, dense = gradients(form)
    activation = ours.activation
    assert len(ours) == 6
    assert torch.allclose(ours.mean(), dense.mean((2, 3)), atol=1e-5)
    assert torch.allclose(ours.inner(), (dense * activation).sum((2, 3)), atol=1e-4)
    assert torch.equal(ours.dense(torch.tensor([4, 0])), dense[[4, 0]])
    maps = ours.elementwise(lambda a, g: (a * g.relu()).sum(1))
    assert torch.allclose(maps, (activation * dense.relu()).sum(1), atol=1e-5)


@pytest.mark.parametrize("form", ["dense", "local", "local, small map", "local, cut out"])
@pytest.mark.parametrize("method", sorted(FORMULAS))
def test_methods_equal_their_formulas(form: str, method: str) -> None:
    ours, dense = gradients(form)
    function = METHODS.get(method)
    assert function is not None
    for fast, gradient in zip(function(ours), dense, strict=True):
        slow = FORMULAS[method](ours.activation, gradient)
        assert torch.allclose(fast, slow, atol=1e-4 * float(slow.abs().max()))


def test_gradcam_plus_plus_weighs_a_channel_below_zero_by_half_its_gradient() -> None:
    activation = -10 * torch.rand(1, 200, 304, generator=torch.Generator().manual_seed(0))
    gradient = torch.zeros(2, 1, 200, 304)
    gradient[0, 0, 50, 50], gradient[1, 0, 50, 50] = 40, 1
    weights = gradcam_plus_plus_weights(DenseGradient(activation, gradient))
    assert weights.tolist() == [[20], [0.5]]


@pytest.mark.parametrize("buffer", [1, 250, 10_000])
def test_gradcam_plus_plus_sums_what_is_above_zero_a_few_channels_at_a_time(
    buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weighting, "BUFFER", buffer)
    ours, dense = gradients("dense")
    total = ours.activation.clamp(min=0).sum((1, 2))[:, None, None]
    expected = (dense.relu() / (2 + total * dense.relu())).sum((2, 3))
    assert torch.allclose(gradcam_plus_plus_weights(ours), expected, atol=1e-6)

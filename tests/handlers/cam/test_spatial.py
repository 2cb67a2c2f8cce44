from __future__ import annotations

import pytest
import torch

from handlers.cam.gradient import DenseGradient, LocalGradient
from handlers.cam.spatial import gcame, ssgradcam, ssgradcam_plus_plus
from tests.handlers.slow_twin import FORMULAS

ACTIVATION = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[1.0, -1.0], [2.0, 0.0]]])
GRADIENT = torch.tensor([[[0.0, 4.0], [-2.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])


def test_space_maps_by_hand() -> None:
    # mean(g) is 1 and 0; the first channel's space map is [[0, 1], [1/2, 1/2]].
    found = ssgradcam(DenseGradient(ACTIVATION, GRADIENT[None]))
    assert found.tolist() == [[[0.0, 2.0], [1.5, 2.0]]]


def test_the_weights_of_gradcam_plus_plus_by_hand() -> None:
    # sum(A) = 10: 4 / (2 + 40) + 2 / (2 + 20) of the first channel.
    weight = 4 / 42 + 2 / 22
    found = ssgradcam_plus_plus(DenseGradient(ACTIVATION, GRADIENT[None]))
    assert torch.allclose(found, weight * torch.tensor([[[0.0, 2.0], [1.5, 2.0]]]))


def test_gaussians_by_hand() -> None:
    # Peak at row 0, column 1; distances 1 (gradient 0), 0, 2, 1: variance (2 * 2 + 2) / 8 / 2.
    variance = 6 / 16
    kernel = torch.exp(-torch.tensor([[1.0, 0.0], [2.0, 1.0]]) / (2 * variance))
    used = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    found = gcame(DenseGradient(ACTIVATION, GRADIENT[None]))
    assert torch.allclose(found, (ACTIVATION[0] * kernel * used)[None])


@pytest.mark.parametrize("method", ["ssgradcam", "ssgradcam++", "gcame"])
def test_windows_over_the_border(method: str) -> None:
    torch.manual_seed(0)
    activation, inside = torch.randn(3, 5, 6), torch.randn(2, 3, 3, 3)
    inside[0, :, 0] = 0  # its square begins a row above the map
    local = LocalGradient(activation, inside, torch.tensor([-1, 2]), torch.tensor([0, 3]))
    found = {"ssgradcam": ssgradcam, "ssgradcam++": ssgradcam_plus_plus, "gcame": gcame}[method](
        local
    )
    for row, heat in enumerate(found):
        expected = FORMULAS[method](activation, local.dense(torch.tensor([row]))[0])
        assert torch.allclose(heat, expected, atol=1e-6)

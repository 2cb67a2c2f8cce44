"""README's detector of one's own, against plain autograd."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from handlers.detectors.registry import build_model
from handlers.explainer import Explainer, ExplainRequest
from handlers.images import Geometry
from handlers.model_file import load_model_file
from tests.conftest import random_picture

README = Path(__file__).parents[3] / "README.md"
PICTURE = random_picture(120, 200, 4)


@pytest.fixture(scope="module")
def centernet() -> Explainer:
    code = re.search(r"^```python\n(# centernet.py\n.*?)^```", README.read_text(), re.M | re.S)
    assert code
    load_model_file("centernet.py", code[1].encode())
    torch.manual_seed(2)
    model = build_model("centernet", 3)
    for parameter in model.parameters():
        if parameter.dim() == 4:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return Explainer.from_model(model, ["cup", "disc", "ring"])


def heads(centernet: Explainer) -> tuple[Tensor, Tensor, Tensor]:
    detector, model = centernet.detector, centernet.detector.model
    with torch.no_grad():
        maps = model.get_submodule("body")(detector.prepare(PICTURE).tensors)
    maps.requires_grad_()
    return maps, model.get_submodule("heat")(maps)[0], model.get_submodule("size")(maps)[0]


def test_peaks_and_their_gradients(centernet: Explainer) -> None:
    maps, heat, size = heads(centernet)
    peaks = []
    for label in range(3):
        for row in range(32):
            for column in range(32):
                near = heat[label, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                if bool((heat[label, row, column] >= near).all()):
                    peaks.append((float(heat[label, row, column].sigmoid()), row, column, label))
    peaks = [peak for peak in sorted(peaks, reverse=True) if peak[0] > 0.05]
    detections = centernet.detect([PICTURE])[0]
    explanations = centernet.explain([PICTURE], ExplainRequest(score_threshold=0.0))[0]
    assert len(explanations) == len(detections) == min(100, len(peaks)) > 10
    scores = torch.tensor([peak[0] for peak in peaks[:100]])
    torch.testing.assert_close(detections.scores, scores, rtol=1e-4, atol=1e-5)
    places = [divmod(candidate, 32) for candidate in detections.candidate.tolist()]
    for explanation, (row, column) in zip(explanations, places, strict=True):
        value = heat[explanation.label, row, column]
        assert explanation.score == pytest.approx(float(value.sigmoid()), abs=1e-5)
        assert any(peak[1:] == (row, column, explanation.label) for peak in peaks)
        width = float(size[0, row, column].exp()) * 32
        x1 = ((column + 0.5) * 8 - width / 2) / (256 / 200)
        assert explanation.box[0] == pytest.approx(min(max(x1, 0), 200), abs=1e-2)
        (gradient,) = torch.autograd.grad(value, maps, retain_graph=True)
        expected = (gradient * maps)[0].sum(0).clamp(min=0).detach()
        tolerance = 1e-3 * float(expected.max()) + 1e-9
        torch.testing.assert_close(explanation.heatmap, expected, rtol=1e-3, atol=tolerance)


def test_why_there_is_no_box(centernet: Explainer) -> None:
    texts = {
        each.outcome for each in centernet.explain([PICTURE], ExplainRequest(candidates=60))[0]
    }
    assert "no peak of its heatmap" in texts
    assert "reported as box 0" in texts


def test_strides_that_are_no_powers_of_two() -> None:
    frame = Geometry(120, 120, 120.0, 120.0, 1.0, 1.0)
    # A layer of stride 32 that rounded up to 4 cells is not one of stride 30.
    for cells, strides, side in ((10, (12,), 120), (6, (20,), 120), (4, (12,), 128)):
        grid = frame.on_samples(cells, cells, strides)
        assert (grid.frame_width, grid.frame_height) == (side, side)
        stride = side / cells
        assert grid.point_of(3.5, 0.5, cells, cells) == pytest.approx((3 * stride + 0.5, 0.5))

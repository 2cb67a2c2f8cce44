from __future__ import annotations

import pytest

from handlers.detectors.registry import detector_for
from handlers.images import Geometry
from tests.conftest import small_model


@pytest.mark.parametrize(
    ("architecture", "side", "cells", "middles"),
    [
        # VGG's pooling leaves blocks of 8 pixels; 300 pixels are 37.5 of them.
        ("ssd300_vgg16", 300, 38, [4.0, 12.0, 20.0]),
        ("ssd300_vgg16", 300, 10, [16.0, 48.0, 80.0]),
        # The last maps come from convolutions without padding: no power of two.
        ("ssd300_vgg16", 300, 3, [50.0, 150.0, 250.0]),
        # MobileNet's convolutions of stride 2 sit on every second pixel.
        ("ssdlite320_mobilenet_v3_large", 320, 20, [0.5, 16.5, 32.5]),
    ],
)
def test_where_cells_lie(architecture: str, side: int, cells: int, middles: list[float]) -> None:
    detector = detector_for(small_model(architecture))
    frame = Geometry(side, side, float(side), float(side), 1.0, 1.0)
    grid = detector.on_grid(frame, cells, cells)
    assert [grid.point_of(i + 0.5, 0.5, cells, cells)[0] for i in range(3)] == middles

"""A small evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers.images import to_image
from jobs.options import EvaluateOptions
from tests.conftest import scene_picture


@pytest.fixture
def options(tmp_path: Path) -> EvaluateOptions:
    (tmp_path / "in").mkdir()
    for number in range(2):
        to_image(scene_picture(number)).save(tmp_path / f"in/{number}.png")
    return EvaluateOptions(
        "demo.mar",
        (str(tmp_path / "in"),),
        str(tmp_path / "out"),
        methods=("odam",),
        layers=("emitting", "emitting+backbone.body.block3"),
        detections=2,
        per_picture=1,
        steps=2,
    )

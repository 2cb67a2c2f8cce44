"""Every gradient method on a two-stage detector, on the map that emitted each box."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks.added_cost import gradient_methods
from tests.benchmarks.harness import Goal, Row, Settings, Work

ARCHITECTURE = "fasterrcnn_resnet50_fpn"


def _run(settings: Settings) -> Iterator[Row]:
    # A threshold of zero makes random weights report a hundred boxes.
    options = settings.sized(box_score_thresh=0.0)
    yield from gradient_methods(settings, ARCHITECTURE, options, Goal(1.05))


WORK = Work("Gradient methods, two-stage: detect and explain over stock detect", _run)

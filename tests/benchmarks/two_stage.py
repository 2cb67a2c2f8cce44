"""Every gradient method on a two-stage detector, on the map that emitted each box."""

from __future__ import annotations

from collections.abc import Iterator

from handlers.detectors.registry import build_model
from handlers.schema import ExplainRequest
from tests.benchmarks.added_cost import CLASSES, Subject, added_cost, gradient_methods
from tests.benchmarks.harness import Goal, Row, Settings, Work

ARCHITECTURE = "fasterrcnn_resnet50_fpn"


def _run(settings: Settings) -> Iterator[Row]:
    # A threshold of zero makes random weights report a hundred boxes.
    model = build_model(ARCHITECTURE, CLASSES, settings.sized(box_score_thresh=0.0))
    requests = [ExplainRequest(method=name, score_threshold=0.0) for name in gradient_methods()]
    subject = Subject.of(ARCHITECTURE, model, settings)
    yield from added_cost(
        settings,
        subject,
        requests,
        Goal(1.05),
        lambda request, boxes: f"{ARCHITECTURE}, {request.method}, {boxes} boxes",
    )


WORK = Work("Gradient methods, two-stage: detect and explain over detect", _run)

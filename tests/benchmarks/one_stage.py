"""Every gradient method on one-stage detectors whose heads see a window."""

from __future__ import annotations

from collections.abc import Iterator

from handlers.detectors.registry import build_model
from handlers.schema import ExplainRequest
from tests.benchmarks.added_cost import CLASSES, Subject, added_cost, gradient_methods
from tests.benchmarks.harness import Goal, Row, Settings, Work

ARCHITECTURES = ("retinanet_resnet50_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large")


def _run(settings: Settings) -> Iterator[Row]:
    for name in ARCHITECTURES:
        options = {"score_thresh": 0.0, "detections_per_img": 100}
        if "ssd" not in name:  # these have a size of their own
            options = settings.sized(**options)
        subject = Subject.of(name, build_model(name, CLASSES, options), settings)
        methods = gradient_methods()[:1] if settings.tiny else gradient_methods()
        requests = [ExplainRequest(method=method, score_threshold=0.0) for method in methods]

        def case(request: ExplainRequest, boxes: int, name: str = name) -> str:
            return f"{name}, {request.method}, {boxes} boxes"

        yield from added_cost(settings, subject, requests, Goal(1.2), case)


WORK = Work("Gradient methods, RetinaNet, SSD and SSDlite: detect and explain over detect", _run)

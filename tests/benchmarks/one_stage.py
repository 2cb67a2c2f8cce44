"""Every gradient method on one-stage detectors whose heads see a window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.benchmarks.added_cost import gradient_methods
from tests.benchmarks.harness import Goal, Row, Settings, Work

ARCHITECTURES = ("retinanet_resnet50_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large")


def _run(settings: Settings) -> Iterator[Row]:
    for name in ARCHITECTURES:
        options: dict[str, Any] = {"score_thresh": 0.0, "detections_per_img": 100}
        if "ssd" not in name:  # these have a size of their own
            options = settings.sized(**options)
        yield from gradient_methods(settings, name, options, Goal(1.2))


WORK = Work("Gradient methods, RetinaNet, SSD and SSDlite: detect and explain over stock", _run)

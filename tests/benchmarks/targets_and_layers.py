"""What each target and each layer costs on top of detection, a picture and a box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from handlers.schema import ExplainRequest
from tests.benchmarks.harness import Row, Settings, Work, middle
from tests.benchmarks.methods import ARCHITECTURE, BOXES, Timer, row_of

TARGETS = ("class", "probability", "x1", "box", "combined", "objectness")
LAYERS = ("C5", "C4", "C3", "pyramid", "roi")
# The one that deletion and insertion find most faithful.
FAITHFUL = ExplainRequest("layercam", layer="C3", smooth=0.1, center_prior=0.35)


def run(settings: Settings) -> Iterator[Row]:
    """A row for each, with ODAM, and two for the most faithful map."""
    timer = Timer(settings)
    detection = timer.detection()
    requests = {
        **{f"target {each}": ExplainRequest("odam", target=each) for each in TARGETS},
        **{f"layer {each}": ExplainRequest("odam", layer=each) for each in LAYERS},
        "layercam, C3, smooth 0.1, center prior 0.35": FAITHFUL,
        "the same, shared": replace(FAITHFUL, shared=True),
    }
    for case, request in requests.items():
        one = replace(request, score_threshold=0.0, max_detections=1)
        seconds = timer.added(one)
        ten = middle(timer.added(replace(one, max_detections=BOXES)))
        yield row_of(case, seconds, (ten - middle(seconds)) / (BOXES - 1), detection)


WORK = Work(f"Every target and layer on {ARCHITECTURE}, 640 x 480, added to detection", run)

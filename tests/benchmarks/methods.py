"""What each method costs on top of detection, for a picture and for each of its boxes."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from handlers.cam.registry import METHODS, Evidence, evidence_of
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from tests.benchmarks.harness import Row, Settings, Work, added_seconds, middle, spread

ARCHITECTURE = "fasterrcnn_resnet50_fpn"
BOXES = 10
# Those that run the detector for each mask or channel are timed on few, and scaled up.
MASKS = 8
PAPERS = {"drise": 5000, "dclose": 4000}
SLOW = (Evidence.MASKS, Evidence.CHANNELS_AS_MASKS)


def run(settings: Settings) -> Iterator[Row]:
    """A row for each method: seconds for one box; what a box more adds is among the figures."""
    torch.manual_seed(0)
    options = settings.sized(box_score_thresh=0.0)
    model = build_model(ARCHITECTURE, 91, options)
    explainer = Explainer.from_model(model, [str(label) for label in range(91)], settings.device)
    picture = settings.picture()
    start = settings.clock()
    explainer.detect([picture])
    detection = settings.clock() - start
    for method in METHODS.names():
        evidence = evidence_of(method)
        rounds = 1 if evidence in SLOW else settings.rounds
        seconds: dict[int, list[float]] = {}
        for boxes in (1, BOXES):
            request = ExplainRequest(method, score_threshold=0.0, max_detections=boxes, masks=MASKS)
            with added_seconds(explainer, settings) as added:
                for _ in range(rounds):
                    explainer.explain([picture], request)
            seconds[boxes] = added
        scale = PAPERS.get(method, MASKS) / MASKS
        one, ten = middle(seconds[1]) * scale, middle(seconds[BOXES]) * scale
        yield Row(
            case=method,
            measure="seconds added for one box",
            value=one,
            spread=tuple(each * scale for each in spread(seconds[1])),  # type: ignore[arg-type]
            ours=one,
            other=detection,
            note=f"timed on {MASKS} masks of {PAPERS[method]}" if method in PAPERS else "",
            figures={
                "each_more_box_s": max(0.0, (ten - one) / (BOXES - 1)),
                "detection_s": detection,
            },
        )


WORK = Work(f"Every method on {ARCHITECTURE}, 640 x 480, added to detection", run)

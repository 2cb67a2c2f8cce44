"""What each method costs on top of detection, for a picture and for each of its boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from handlers.cam.registry import METHODS, Evidence, evidence_of
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from handlers.time_limit import OutOfTimeError, time_limit
from tests.benchmarks.harness import Row, Settings, Work, added_seconds, middle, spread

ARCHITECTURE = "fasterrcnn_resnet50_fpn"
BOXES = 10
# Those that look at masked pictures are timed on few and on more of them, for one box: the
# difference is what a mask costs, for all boxes together.
PAPERS = {"drise": 5000, "dclose": 4000}
FEW, MORE = 4, 12
# Those that mask the picture with each channel are given up after so many seconds, by when it is
# known how long all would take.
PATIENCE = 60.0

Seconds = list[float]


class Timer:
    """Runs requests on a picture and says how long explaining took, round by round."""

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(0)
        model = build_model(ARCHITECTURE, 91, settings.sized(box_score_thresh=0.0))
        labels = [str(label) for label in range(91)]
        self.settings, self.picture = settings, settings.picture()
        self.explainer = Explainer.from_model(model, labels, settings.device)

    def detection(self) -> float:
        """Seconds."""
        found: Seconds = []
        for _ in range(self.settings.rounds + 1):
            start = self.settings.clock()
            self.explainer.detect([self.picture])
            found.append(self.settings.clock() - start)
        return middle(found[1:])

    def added(self, request: ExplainRequest) -> Seconds:
        """Each round's, after one that is not counted."""
        with added_seconds(self.explainer, self.settings) as found:
            for _ in range(self.settings.rounds + 1):
                self.explainer.explain([self.picture], request)
        return found[1:]

    def of_masks(self, request: ExplainRequest) -> Seconds:
        """The same for as many masks as the method's paper has."""
        few, more = (self.added(replace(request, masks=number)) for number in (FEW, MORE))
        each = [(two - one) / (MORE - FEW) for one, two in zip(few, more, strict=True)]
        rest = PAPERS[request.method] - FEW
        return [one + rest * own for one, own in zip(few, each, strict=True)]

    def of_channels(self, request: ExplainRequest) -> Seconds:
        """The same where a detection for each channel takes long: once, or as is foreseen."""
        with added_seconds(self.explainer, self.settings) as found:
            try:
                with time_limit(PATIENCE):
                    self.explainer.explain([self.picture], request)
            except OutOfTimeError as error:
                return [error.needed - middle([self.detection()])]
        return found


def run(settings: Settings) -> Iterator[Row]:
    """A row for each method: seconds for one box; what a box more adds is among the figures."""
    timer = Timer(settings)
    detection = timer.detection()
    for method in METHODS.names():
        one = ExplainRequest(method, score_threshold=0.0, max_detections=1)
        several = replace(one, max_detections=BOXES)
        measure, note = timer.added, ""
        if evidence_of(method) is Evidence.CHANNELS_AS_MASKS:
            # More boxes cost nothing, as long as they are of the same level.
            measure, several, note = timer.of_channels, one, "for each level that emits a box"
        elif evidence_of(method) is Evidence.MASKS:
            measure, several = timer.of_masks, one
            note = f"{PAPERS[method]:,} masks, from {FEW} and {MORE}"
        seconds = measure(one)
        ten = middle(seconds) if several == one else middle(measure(several))
        case = method + (f" ({note})" if note else "")
        yield row_of(case, seconds, (ten - middle(seconds)) / (BOXES - 1), detection)


def row_of(case: str, seconds: Seconds, each_more: float, detection: float) -> Row:
    """What explaining one box takes, each round, and what each box more adds."""
    return Row(
        case=case,
        measure="seconds added for one box",
        value=middle(seconds),
        spread=spread(seconds),
        ours=middle(seconds),
        other=detection,
        figures={
            "each_more_box_s": max(0.0, each_more),
            "in_detections": middle(seconds) / detection,
            "detection_s": detection,
        },
    )


WORK = Work(f"Every method on {ARCHITECTURE}, 640 x 480, added to detection", run)

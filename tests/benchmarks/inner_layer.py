"""Grad-CAM of 20 boxes on a layer inside the backbone, against pytorch-grad-cam box by box."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from handlers.detectors.registry import build_model
from handlers.schema import ExplainRequest, Explanation
from tests.benchmarks.added_cost import CLASSES, Subject
from tests.benchmarks.harness import (
    Goal,
    Row,
    Settings,
    Work,
    alternate,
    difference,
    equal,
    middle,
    ratios,
    spread,
)
from tests.benchmarks.peers import before_stretching

ARCHITECTURE = "fasterrcnn_resnet50_fpn"
LAYER = "backbone.body.layer4"
BOXES = 20


class ScoreOf:
    """pytorch-grad-cam's kind of target: the reported score of one box."""

    def __init__(self, place: int) -> None:
        self.place = place

    def __call__(self, output: Mapping[str, Tensor]) -> Tensor:
        return output["scores"][self.place]


def _run(settings: Settings) -> Iterator[Row]:
    from pytorch_grad_cam import GradCAM

    native: list[Tensor] = []
    model = build_model(ARCHITECTURE, CLASSES, settings.sized(box_score_thresh=0.0))
    subject = Subject.of(ARCHITECTURE, model, settings)
    boxes = 4 if settings.tiny else BOXES
    request = ExplainRequest(
        method="gradcam",
        target="probability",
        layer=LAYER,
        score_threshold=0.0,
        max_detections=boxes,
    )
    explained: list[Explanation] = []
    batch = subject.picture[None] / 255

    def ours() -> None:
        explained[:] = subject.explainer.explain([subject.picture], request)[0]

    def peer() -> None:
        with GradCAM(model, [model.get_submodule(LAYER)]) as cam:
            kept = before_stretching(cam)
            for place in range(boxes):
                cam(batch, [ScoreOf(place)])
        native[:] = [each[0] for each in kept]

    seconds = alternate(settings, ours=ours, peer=peer)
    differences = [
        difference(one.heatmap, other.clamp(min=0))
        for one, other in zip(explained, native, strict=True)
    ]
    times = ratios(seconds["peer"], seconds["ours"])
    yield Row(
        case=f"{ARCHITECTURE}, {LAYER}, {boxes} boxes",
        measure="times faster than pytorch-grad-cam",
        value=middle(times),
        spread=spread(times),
        ours=middle(seconds["ours"]),
        other=middle(seconds["peer"]),
        goal=Goal(10, at_most=False),
        same=equal(max(differences)),
        note="Both sides detect as well: ours once, the peer once for each box, as it is called.",
    )


WORK = Work("Grad-CAM inside the backbone, against pytorch-grad-cam once a box", _run)

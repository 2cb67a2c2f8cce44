"""D-RISE: what all but the detector's own forward pass costs, as a share of that, ours and
xaitk-saliency's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handlers.cam.registry import METHODS
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from tests.benchmarks.added_cost import CLASSES, Subject
from tests.benchmarks.harness import (
    Goal,
    Row,
    Settings,
    SkippedError,
    Work,
    middle,
    spread,
)

# A light detector, beside which everything else weighs most; and a heavy one with a
# twenty-fifth of the masks.
ARCHITECTURES = {"fasterrcnn_mobilenet_v3_large_320_fpn": 1, "fasterrcnn_resnet50_fpn": 25}
GRID = 16
SHARE = 0.5  # of the grid's cells that stay visible
BOXES = 100
SHARES = "all else over the detector's forward pass"


@contextmanager
def _inside(owner: Any, name: str, settings: Settings) -> Iterator[list[float]]:
    """Seconds spent in a method of `owner`, appended as they come."""
    method = getattr(owner, name)
    spent: list[float] = []

    def timed(*arguments: Any) -> Any:
        start = settings.clock()
        found = method(*arguments)
        spent.append(settings.clock() - start)
        return found

    vars(owner)[name] = timed
    try:
        yield spent
    finally:
        del vars(owner)[name]


def _rounds(
    settings: Settings, sides: dict[str, tuple[Callable[[], None], list[float]]]
) -> dict[str, list[tuple[float, float]]]:
    """For each side's every round the seconds in all, and those inside the detector."""
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(settings.rounds):
        for name in sorted(sides, reverse=bool(number % 2)):
            run, spent = sides[name]
            spent.clear()
            start = settings.clock()
            run()
            results[name].append((settings.clock() - start, sum(spent)))
    return results


class _Forward:
    """The stock model on a numpy picture [H, W, 3]."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.device = next(subject.model.parameters()).device

    @torch.no_grad()
    def detect(self, picture: np.ndarray[Any, Any]) -> dict[str, Tensor]:
        tensor = torch.from_numpy(picture).to(self.device).permute(2, 0, 1) / 255
        found: dict[str, Tensor] = self.subject.model([tensor])[0]
        return {name: each.cpu() for name, each in found.items()}


def _peer(subject: Subject, forward: _Forward, masks: int) -> Callable[[], None]:
    from smqtk_detection.interfaces.detect_image_objects import DetectImageObjects
    from smqtk_image_io import AxisAlignedBoundingBox
    from xaitk_saliency.impls.gen_object_detector_blackbox_sal.drise import DRISEStack

    class Blackbox(DetectImageObjects):  # type: ignore[misc]
        def detect_objects(self, img_iter: Iterable[np.ndarray[Any, Any]]) -> Iterator[Any]:
            for picture in img_iter:
                found = forward.detect(picture)
                yield [
                    (
                        AxisAlignedBoundingBox(box[:2], box[2:]),
                        {each: score if each == label else 0.0 for each in range(CLASSES)},
                    )
                    for box, label, score in zip(
                        found["boxes"].numpy(),
                        found["labels"].tolist(),
                        found["scores"].tolist(),
                        strict=True,
                    )
                ]

        def get_config(self) -> dict[str, Any]:
            return {}

    picture = subject.picture.permute(1, 2, 0).contiguous().numpy()
    generate = DRISEStack(n=masks, s=GRID, p1=SHARE, seed=0)

    def run() -> None:
        found = forward.detect(picture)
        boxes, labels = found["boxes"].numpy()[:BOXES], found["labels"].numpy()[:BOXES]
        scores = np.eye(CLASSES, dtype=np.float32)[labels]
        generate(picture, boxes, scores, Blackbox(), found["scores"].numpy()[:BOXES])

    return run


def _run(settings: Settings) -> Iterator[Row]:
    if "drise" not in METHODS.names():
        raise SkippedError("there is no method drise in this checkout")
    for name, fewer in ARCHITECTURES.items():
        masks = 10 if settings.tiny else max(1, settings.masks // fewer)
        options = settings.sized(box_score_thresh=0.0)
        subject = Subject.of(name, build_model(name, CLASSES, options), settings)
        explainer: Explainer = subject.explainer
        request = ExplainRequest(
            method="drise", score_threshold=0.0, max_detections=BOXES, masks=masks
        )
        boxes = 0

        def ours(
            explainer: Explainer = explainer,
            subject: Subject = subject,
            request: ExplainRequest = request,
        ) -> None:
            nonlocal boxes
            boxes = len(explainer.explain([subject.picture], request)[0])

        forward = _Forward(subject)
        with (
            _inside(explainer.network, "find", settings) as in_ours,
            _inside(forward, "detect", settings) as in_peer,
        ):
            sides: dict[str, tuple[Callable[[], None], list[float]]] = {"ours": (ours, in_ours)}
            try:
                sides["peer"] = (_peer(subject, forward, masks), in_peer)
            except ModuleNotFoundError as error:
                print(f"  without the peer: {error.name} is not installed; pip install '.[bench]'")
            # Once for nothing: a detector's first run is slow, and a round is long.
            explainer.detect([subject.picture])
            subject.detect()
            results = _rounds(settings, sides)
        goals = {"ours": Goal(0.05), "peer": None}
        titles = {"ours": "Whybox", "peer": "xaitk-saliency"}
        for side, rounds in results.items():
            shares = [(whole - inside) / inside for whole, inside in rounds]
            yield Row(
                case=f"{titles[side]}, {name}, {masks} masks, {boxes} boxes",
                measure=SHARES,
                value=middle(shares),
                spread=spread(shares),
                ours=middle([whole for whole, _ in rounds]) if side == "ours" else None,
                other=middle([whole for whole, _ in rounds]) if side == "peer" else None,
                goal=goals[side],
                note=(
                    "The forward pass is all that detects, suppression included. Masks are drawn by"
                    " each side's own generator, so maps are not compared here; tests hold ours"
                    " against the formula."
                ),
                figures={"forward_s": middle([inside for _, inside in rounds]), "masks": masks},
            )


WORK = Work("D-RISE: the share of everything but the detector's own forward pass", _run)

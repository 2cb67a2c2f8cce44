"""Detectors whose heads couple all cells of a map by GroupNorm: every gradient method on 20 boxes
over all levels, and one on 20 of each level."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from handlers.detectors.registry import build_model
from handlers.schema import ExplainRequest
from tests.benchmarks.added_cost import CLASSES, AddedCost, Subject, method_names
from tests.benchmarks.harness import Goal, Row, Settings, Work

ARCHITECTURES = ("fcos_resnet50_fpn", "retinanet_resnet50_fpn_v2")
BOXES = 20
BY_LEVEL = "odam"


def _run(settings: Settings) -> Iterator[Row]:
    for name in ARCHITECTURES:
        # So many that every level has some.
        options = settings.sized(score_thresh=0.0, detections_per_img=3000)
        subject = Subject.of(name, build_model(name, CLASSES, options), settings)
        explainer = subject.explainer
        levels = explainer.detector.level_names()
        emitted = explainer.detect([subject.picture])[0].level
        by_level = {
            level: [place for place, each in enumerate(emitted) if each == level]
            for level in levels
        }
        evenly = [place for own in by_level.values() for place in own[: BOXES // len(levels)]]
        cost = AddedCost(settings, subject)
        cases = [(method, "over all levels", evenly) for method in method_names(settings)]
        cases += [(BY_LEVEL, f"of level {level}", places) for level, places in by_level.items()]
        for method, where, places in cases:
            chosen = torch.tensor(places[:BOXES], dtype=torch.int64)
            # A request names boxes by category and score; here they are chosen by level.
            vars(explainer)["choose"] = lambda labels, scores, request, chosen=chosen: chosen.to(
                labels.device
            )
            request = ExplainRequest(method=method, score_threshold=0.0, max_detections=BOXES)
            title = f"{name}, {method}, {{}} boxes {where}".format
            cost.run(request, title, Goal(2.0) if places is evenly else None)
        yield from cost.rows()


WORK = Work("FCOS and RetinaNet v2 (GroupNorm): detect and explain over stock detect", _run)

"""Detect and explain beside stock detection, on one picture: what the works of detectors share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from handlers.cam.registry import METHODS, Evidence, evidence_of
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from tests.benchmarks.harness import (
    Goal,
    Row,
    Settings,
    added_seconds,
    alternate,
    middle,
    ratios,
    same_boxes,
    spread,
)

CLASSES = 91
OVER_STOCK = "detect + explain over stock detect"
HOW = (
    "Two factors, so that most of the machine's noise cancels: ours over its own part before the"
    " first explanation, from one run (`own_ratio`), times our detection over the stock model's,"
    " the"
    ' median of all rounds of all cases of a detector (the row "detection alone").'
    " `stock_ratio` in the JSON is our whole run over the stock model's, round by round."
)


@dataclass(frozen=True)
class Subject:
    """A detector with random weights and a picture; explainer: of the same weights."""

    name: str
    model: nn.Module
    explainer: Explainer
    picture: Tensor

    @classmethod
    def of(cls, name: str, model: nn.Module, settings: Settings) -> Subject:
        """On the device of the settings."""
        labels = [str(label) for label in range(CLASSES)]
        explainer = Explainer.from_model(model, labels, settings.device)
        return cls(name, model, explainer, settings.picture())

    @torch.no_grad()
    def detect(self) -> Any:
        """As torchvision does it."""
        return self.model([self.picture.to(next(self.model.parameters()).device) / 255])


@dataclass(frozen=True)
class _Case:
    """Seconds of each round of one case. added: of `ours` what came after detection."""

    name: str
    boxes: int
    goal: Goal | None
    added: list[float]
    ours: list[float]
    stock: list[float]


class AddedCost:
    """What explaining adds to a detector's stock detection: cases first, then their rows."""

    def __init__(self, settings: Settings, subject: Subject) -> None:
        self.settings, self.subject = settings, subject
        self._cases: list[_Case] = []

    def run(
        self, request: ExplainRequest, name: Callable[[int], str], goal: Goal | None = None
    ) -> None:
        """Runs a case; name: what it is called, by its number of boxes."""
        explainer, boxes = self.subject.explainer, 0

        def explain() -> None:
            nonlocal boxes
            boxes = len(explainer.explain([self.subject.picture], request)[0])

        with added_seconds(explainer, self.settings) as added:
            seconds = alternate(self.settings, stock=self.subject.detect, ours=explain)
        # The first run is not counted.
        case = _Case(name(boxes), boxes, goal, added[1:], seconds["ours"], seconds["stock"])
        self._cases.append(case)
        print(f"  ... {case.name}: {middle(case.added):.3g} s added", flush=True)

    def rows(self) -> Iterator[Row]:
        """Of the detection alone, and of all cases."""
        alone = [
            (whole - part) / stock
            for case in self._cases
            for whole, part, stock in zip(case.ours, case.added, case.stock, strict=True)
        ]
        yield Row(
            case=f"{self.subject.name}, detection alone",
            measure="our detect over stock detect",
            value=middle(alone),
            spread=spread(alone),
            same=same_boxes(
                self.subject.explainer.detect([self.subject.picture])[0], self.subject.detect()[0]
            ),
            figures={"rounds": len(alone)},
        )
        for case in self._cases:
            yield self._row(case, middle(alone))

    def _row(self, case: _Case, alone: float) -> Row:
        own = [whole / (whole - part) for whole, part in zip(case.ours, case.added, strict=True)]
        against = ratios(case.ours, case.stock)
        return Row(
            case=case.name,
            measure=OVER_STOCK,
            value=middle(own) * alone,
            spread=(min(own) * alone, max(own) * alone),
            ours=middle(case.ours),
            other=middle(case.stock),
            goal=case.goal,
            note=HOW,
            figures={
                "boxes": case.boxes,
                "added_s": middle(case.added),
                "own_ratio": middle(own),
                "stock_ratio": middle(against),
                "stock_ratio_spread": spread(against),
            },
        )


def method_names(settings: Settings) -> list[str]:
    """Methods that look at the gradient on a layer; of tiny work one."""
    names = [each for each in METHODS.names() if evidence_of(each) is Evidence.GRADIENT]
    return names[:1] if settings.tiny else names


def gradient_methods(
    settings: Settings, name: str, options: Mapping[str, Any], goal: Goal
) -> Iterator[Row]:
    """The rows of every method that looks at the gradient on the map that emitted each box.

    options: of a detector that reports a hundred boxes.
    """
    subject = Subject.of(name, build_model(name, CLASSES, options), settings)
    cost = AddedCost(settings, subject)
    for method in method_names(settings):
        request = ExplainRequest(method=method, score_threshold=0.0)
        cost.run(request, f"{name}, {method}, {{}} boxes".format, goal)
    plain = replace(subject.explainer.defaults, score_threshold=0.0)
    cost.run(plain, f"{name}, what it does by itself ({_changed(plain)}), {{}} boxes".format, goal)
    yield from cost.rows()


def _changed(request: ExplainRequest) -> str:
    """The method, and what else is not as in a plain request."""
    plain = ExplainRequest(request.method, score_threshold=request.score_threshold)
    names = [each.name for each in fields(request)]
    own = [name for name in names if getattr(request, name) != getattr(plain, name)]
    return ", ".join([request.method, *(f"{name} {getattr(request, name)}" for name in own)])

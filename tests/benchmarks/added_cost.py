"""Detect and explain beside stock detection, on one picture: what the works of detectors share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from handlers.cam.registry import METHODS, Evidence, evidence_of
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
    spread,
)

CLASSES = 91
OWN = "detect + explain over detect"
STOCK = (
    "Ours over its own part before the first explanation, from one run, so that most of the"
    " machine's noise cancels; `stock_ratio` in the JSON is our whole run over the stock model's"
    " own, round by round."
)


def gradient_methods() -> list[str]:
    """Methods that look at the gradient on a layer."""
    return [name for name in METHODS.names() if evidence_of(name) is Evidence.GRADIENT]


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


def added_cost(
    settings: Settings,
    subject: Subject,
    requests: Sequence[ExplainRequest],
    goal: Goal | None,
    case: Callable[[ExplainRequest, int], str],
) -> Iterator[Row]:
    """A row for each request; case: names it, by its number of boxes."""
    explainer = subject.explainer
    for request in requests:
        boxes = 0

        def explain(request: ExplainRequest = request) -> None:
            nonlocal boxes
            boxes = len(explainer.explain([subject.picture], request)[0])

        with added_seconds(explainer, settings) as added:
            seconds = alternate(settings, stock=subject.detect, ours=explain)
        added = added[1:]  # the first run is not counted
        own = [whole / (whole - part) for whole, part in zip(seconds["ours"], added, strict=True)]
        against = ratios(seconds["ours"], seconds["stock"])
        yield Row(
            case=case(request, boxes),
            measure=OWN,
            value=middle(own),
            spread=spread(own),
            ours=middle(seconds["ours"]),
            other=middle(seconds["stock"]),
            goal=goal,
            note=STOCK,
            figures={
                "boxes": boxes,
                "added_s": middle(added),
                "stock_ratio": middle(against),
                "stock_ratio_spread": spread(against),
            },
        )

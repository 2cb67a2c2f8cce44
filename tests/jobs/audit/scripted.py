"""An explainer that finds what a test says it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from handlers.images import Geometry
from handlers.schema import ExplainRequest, Explanation
from tests.jobs.conftest import QuickExplainer

SIDE = 40  # pixels of every picture
Box = tuple[float, float, float, float]


def found(
    category: str, score: float, box: Box, heat: Sequence[Sequence[float]] = ((0, 1), (0, 0))
) -> Explanation:
    """One detection on a picture of SIDE x SIDE, whose map's cells divide it evenly."""
    return Explanation(
        index=0,
        box=box,
        label={"cat": 1, "dog": 2}[category],
        category=category,
        score=score,
        method="odam",
        target="class",
        layer="emitting",
        level="0",
        heatmap=torch.tensor(heat, dtype=torch.float32),
        geometry=Geometry(SIDE, SIDE, float(SIDE), float(SIDE), 1.0, 1.0),
    )


class Scripted(QuickExplainer):
    """Finds in a picture what is written under the grey value of its upper left pixel, each layer
    alike."""

    def __init__(self, script: Mapping[int, Sequence[Explanation]]) -> None:
        super().__init__()
        self.script = script

    def _explain(self, picture: Tensor, request: ExplainRequest) -> list[Explanation]:
        listed = self.script.get(int(picture[0, 0, 0]), ())
        return [
            replace(each, index=place, layer=layer)
            for place, each in enumerate(listed)
            if each.score >= (request.score_threshold or 0)
            for layer in request.layers
        ]

"""Questions as the explainer asks them, for tests that look at the evidence itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from handlers.evidence.scene import Piece, Question, Scene, Where
from handlers.explainer import Explainer
from handlers.precision import exact_float32
from handlers.schema import ExplainRequest
from handlers.tap import undisturbed
from handlers.targets.registry import Outputs, find_target


def evidence(
    gather: Callable[..., Any], explainer: Explainer, picture: Tensor, **fields: Any
) -> list[list[Piece]]:
    """What `gather` finds for the best two boxes of a picture, of a request with `fields`."""
    request = ExplainRequest(max_detections=2, score_threshold=0.0, **fields)
    with undisturbed(explainer.detector.model), exact_float32():
        found = explainer.network.find(explainer.prepare(picture))[0]
        entries = found.kept.entries[: request.max_detections]
        part = explainer.detector.part(explainer._part_name(request.target), found, entries)
        target = find_target(str(request.target))
        assert target is not None

        def scalars(outputs: Outputs) -> Sequence[Tensor]:
            each = target[0].scalars(outputs, target[1])
            return [one.sum()[None] for one in each] if request.sum_boxes else each

        where: Where = explainer._where(request.layers[0], request.target)
        scene = Scene(explainer.network, found)
        joint = request.sum_boxes
        question = Question(scene, part, scalars, entries, where.module, joint=joint)
        return list(gather(question, where, request))

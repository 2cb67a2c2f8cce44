"""One picture's explanations: from what its detector found to heatmaps with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.cam.registry import Evidence, evidence_of
from handlers.detectors.base import AllParts, Part
from handlers.evidence.scene import Question, Scene, Where
from handlers.maps import Heat, fused, heatmaps, joint_heatmaps
from handlers.outcome import Chosen
from handlers.schema import ExplainRequest, Explanation, RequestError
from handlers.shaping import Corners, apart, centered, handed_out, smoothed
from handlers.tap import NonFiniteError, all_finite
from handlers.targets.registry import Outputs, find_target
from handlers.time_limit import on_time


@dataclass(frozen=True)
class Subject:
    """What of a picture is explained.

    chosen: the boxes of the request. part: the detector's outputs for all of them and, for targets
    that read the whole picture's outputs, for all that was reported; places: int64, those of the
    chosen among them.
    """

    chosen: Chosen
    part: Part | AllParts
    places: Tensor


# Places of boxes, of each group.
Groups = Sequence[Sequence[int]]


def reads_whole_picture(request: ExplainRequest) -> bool:
    """The target is a function of all outputs of the picture."""
    if not isinstance(request.target, str):
        return True
    found = find_target(request.target)
    return found is not None and found[0].joint


def explain_picture(
    scene: Scene,
    subject: Subject,
    request: ExplainRequest,
    layers: Sequence[Where],
    categories: Sequence[str],
) -> list[Explanation]:
    """The explanations that a request asks for: box by box, and of each box layer by layer."""
    facts = Facts.of(scene, subject, categories)
    groups = _groups(facts, request)
    in_time = on_time(layers, len(layers), lambda _: 1)
    several = [_heats(scene, subject, request, groups, where) for where in in_time]
    if request.shared and groups:
        several = [handed_out(heats, groups) for heats in several]
    names = [where.name for where in layers]
    rows = list(zip(*several, strict=True))
    if request.fuse and len(layers) > 1:
        rows, names = [(fused(row),) for row in rows], ["+".join(names)]
    together = len(rows) < len(subject.chosen) or request.sum_boxes
    every = [heat for row in rows for heat in row]
    boxes = [facts.boxes if together else [facts.boxes[heat.place]] for heat in every]
    if request.smooth:
        every = smoothed(every, boxes, request.smooth)
    return [
        _explanation(subject, facts, request, names[number % len(names)], heat, own)
        for number, (heat, own) in enumerate(zip(every, boxes, strict=True))
    ]


def _groups(facts: Facts, request: ExplainRequest) -> Groups:
    """Places of chosen boxes that have a map together; none where each has its own."""
    if evidence_of(request.method) is Evidence.MASKS and not request.sum_boxes:
        return []  # masked pictures are all boxes' anyway
    if request.shared:
        return apart(facts.boxes, request.center_prior)
    return [range(len(facts.boxes))] if request.sum_boxes else []


def _heats(
    scene: Scene, subject: Subject, request: ExplainRequest, groups: Groups, where: Where
) -> list[Heat]:
    name = request.target if isinstance(request.target, str) else ""
    found = find_target(name) if name else None
    entries = subject.chosen.entries
    gradient = evidence_of(request.method) is not Evidence.ACTIVATION
    if found is not None and not found[0].joint and not groups:
        target, argument = found

        def scalars(outputs: Outputs) -> list[Tensor]:
            return _finite(target.scalars(outputs, argument))

        question = Question(scene, subject.part, scalars, entries, gradient=gradient, target=name)
        return heatmaps(question, where, request)

    def joint_scalars(outputs: Outputs) -> list[list[Tensor]]:
        explained = _joint_scalars(outputs, scene, subject, request, groups)
        return [_finite(values) for values in explained]

    if evidence_of(request.method) in (Evidence.GRADIENT, Evidence.ACTIVATION):
        return joint_heatmaps(scene, subject.part, joint_scalars, where, request)

    def rows(outputs: Outputs) -> list[Tensor]:
        explained = zip(*joint_scalars(outputs), strict=True)
        return [torch.stack([each.reshape(()) for each in scalar]) for scalar in explained]

    question = Question(scene, subject.part, rows, entries, joint=True, gradient=gradient)
    return heatmaps(question, where, request)


def _finite(values: list[Tensor]) -> list[Tensor]:
    if not all_finite(values):
        raise NonFiniteError("the target's value is not finite (NaN or infinity)")
    return values


def _joint_scalars(
    outputs: Outputs, scene: Scene, subject: Subject, request: ExplainRequest, groups: Groups
) -> list[list[Tensor]]:
    if isinstance(request.target, str):
        found = find_target(request.target)
        assert found is not None  # Explainer.check has seen it
        target, argument = found
        if not target.joint:
            scalars = target.scalars(outputs, argument)
            return [[each[list(group)].sum() for each in scalars] for group in groups]
        outputs = _in_picture(outputs, scene, subject)
        return [target.scalars(outputs, argument)]
    value = request.target(_in_picture(outputs, scene, subject))
    number = len(outputs["labels"])
    if not isinstance(value, Tensor) or value.shape not in ((), (1,), (number,)):
        got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise RequestError(
            "target", f"{request.target_name}, which gave {got}", f"a tensor of [], [1], [{number}]"
        )
    if value.shape != (number,) or (number == 1 and groups):
        return [[value.reshape(())]]
    own = value[subject.places]
    return [[own[list(group)].sum()] for group in groups] if groups else [[each] for each in own]


def _in_picture(outputs: Outputs, scene: Scene, subject: Subject) -> Outputs:
    """With boxes in picture pixels, as the detector reports them."""
    boxes = scene.found.features.inputs.on_picture(outputs["boxes"])
    return outputs.with_(boxes=boxes, chosen=subject.places)


@dataclass(frozen=True)
class Facts:
    """Of each chosen box its corners, label, category, score and level: plain numbers, read off the
    device once."""

    boxes: list[Corners]
    labels: list[int]
    categories: list[str]
    scores: list[float]
    levels: list[str]

    @classmethod
    def of(cls, scene: Scene, subject: Subject, categories: Sequence[str]) -> Facts:
        """Of the subject's boxes."""
        entries, names = subject.chosen.entries, scene.detector.level_names()
        labels = entries.labels.tolist()
        return cls(
            [(x1, y1, x2, y2) for x1, y1, x2, y2 in subject.chosen.boxes.tolist()],
            labels,
            [categories[label] for label in labels],
            entries.scores.tolist(),
            [names[level] for level in subject.part.level[subject.places].tolist()],
        )


def _explanation(
    subject: Subject,
    facts: Facts,
    request: ExplainRequest,
    layer: str,
    heat: Heat,
    boxes: Sequence[Corners],
) -> Explanation:
    """boxes: those that the map is of, one or several."""
    chosen, together = subject.chosen, len(boxes) > 1
    place = 0 if together else heat.place
    outcome = chosen.outcomes[place]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    if request.center_prior:
        heat = centered(heat, boxes, request.center_prior)
    return Explanation(
        index=chosen.index[place],
        box=(min(lefts), min(tops), max(rights), max(bottoms)),
        label=facts.labels[place],
        category=facts.categories[place],
        score=facts.scores[place],
        method=request.method,
        target=request.target_name,
        layer=layer,
        level=facts.levels[place],
        heatmap=heat.heatmap,
        geometry=heat.geometry,
        outcome=outcome.text,
        suppressed_by=outcome.suppressed_by,
        together=tuple(chosen.index) if together else (),
        in_box=request.normalize_in_box,
        boxes=tuple(boxes) if together else (),
        activation=heat.activation,
        gradient=heat.gradient,
    )

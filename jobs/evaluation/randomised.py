"""Maps of the same boxes before and after parts of a detector lose what they learned (Adebayo et
al. 2018, "Sanity checks for saliency maps"): a map that stays as it is does not explain that part.

A randomised detector draws other boxes, so its boxes are not what is compared: the candidates that
the intact detector kept (proposals, anchors or queries, each with its label) are scored once more
by the randomised one, and the maps are of these scores. What is randomised is a part's weights:
each tensor's values come in a random order, so that activations neither fade nor explode.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handlers.detectors.base import Found
from handlers.detectors.weights import BACKBONE, BOX_HEAD, CLASS_HEAD, Weights, shuffled
from handlers.explainer import Explainer
from handlers.images import to_pictures
from handlers.metrics.controls import smooth_random_field
from handlers.metrics.similarity import pearson, spearman
from handlers.schema import ExplainRequest, Explanation
from handlers.tap import undisturbed
from handlers.targets.registry import find_target

# Yardsticks: what the map is compared with instead.
ANOTHER_BOX, RANDOM_FIELD = "another box", "random field"
MEASURES = {"pearson": pearson, "spearman": spearman}
INTACT = "intact"


@dataclass(frozen=True)
class RandomisedOptions:
    """score_threshold, per_picture: which boxes, as for jobs.evaluation.subjects.MeasureOptions.
    repeats: how often each part is randomised anew. seed: of the orders, of the boxes
    drawn and of the fields.
    """

    score_threshold: float = 0.5
    per_picture: int = 4
    repeats: int = 3
    seed: int = 0


@dataclass
class Compared:
    """rows: of each map, box and thing it is compared with ("what") the MEASURES, -1 ... 1; not a
    number where both maps are the same everywhere. shown: of the surest box the explanations, by
    map and then by what was randomised (INTACT for nothing), the first time each."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    shown: dict[str, dict[str, Explanation]] = field(default_factory=dict)


def parts_that_matter(target: str) -> tuple[str, ...]:
    """The parts of a detector that a map for this target has to depend on."""
    found = find_target(target)
    needs = found[0].needs if found else ()
    heads = ((CLASS_HEAD, ("logits", "scores")), (BOX_HEAD, ("boxes",)))
    return (*(part for part, outputs in heads if {*outputs} & {*needs}), BACKBONE)


def compared(
    explainer: Explainer,
    picture: Tensor,
    requests: Mapping[str, ExplainRequest],
    weights: Mapping[str, Sequence[Weights]],
    options: RandomisedOptions,
) -> Compared:
    """The maps that the requests ask for, of some boxes of a picture (uint8 [3, H, W]), compared
    with those after each part's weights are randomised, with another box's and with a random field.

    weights: as `weights_by_part` gives them. The detector's are afterwards what they were, also
    after an error.
    """
    result = Compared()
    with torch.inference_mode(False), undisturbed(explainer.detector.model):
        inputs = explainer.prepare(picture)
        ((_, found),) = explainer.found([inputs])
        index, found = _some(found, picture, options)
        if not index:
            return result
        device = inputs.tensors.device
        alike: list[tuple[str, str, Tensor]] = []

        def maps(found: Found, what: str) -> dict[str, Tensor]:
            heats = {}
            for name, request in requests.items():
                own = explainer.explain_found(found, _all_of(request, len(index)))
                result.shown.setdefault(name, {}).setdefault(what, own[0])
                heats[name] = to_pictures([(e.heatmap, e.geometry) for e in own], device)
            return heats

        def compare(name: str, what: str, one: Tensor, other: Tensor) -> None:
            values = torch.stack([measure(one, other) for measure in MEASURES.values()])
            alike.append((name, what, values))

        before = maps(found, INTACT)
        fields = _fields(picture, index, options.seed).to(device)
        for name, heat in before.items():
            compare(name, RANDOM_FIELD, heat, fields)
            if len(index) > 1:
                compare(name, ANOTHER_BOX, heat, heat.roll(1, 0))
        for part, own in weights.items():
            for repeat in range(options.repeats if own else 0):
                with shuffled(own, options.seed + repeat):
                    after = maps(explainer.network.again(found), part)
                for name, heat in after.items():
                    compare(name, part, before[name], heat)
    values = torch.stack([each for _, _, each in alike]).tolist()  # off the device once
    entries = found.kept.entries
    labels, scores = entries.labels.tolist(), entries.scores.tolist()
    for (name, what, _), own_values in zip(alike, values, strict=True):
        for place, pair in enumerate(zip(*own_values, strict=True)):
            row = {"map": name, "what": what, "index": index[place]}
            row |= {"category": explainer.categories[labels[place]], "score": scores[place]}
            result.rows.append(row | dict(zip(MEASURES, pair, strict=True)))
    return result


def _some(found: Found, picture: Tensor, options: RandomisedOptions) -> tuple[list[int], Found]:
    """Some boxes' places, drawn at random, best first, and what was found with these alone."""
    scores = found.kept.entries.scores.cpu().numpy()
    over = np.flatnonzero(scores > options.score_threshold)
    random = np.random.default_rng([options.seed, zlib.crc32(picture.numpy().tobytes())])
    index = sorted(random.permutation(over)[: options.per_picture].tolist())
    kept, places = found.kept, torch.tensor(index, dtype=torch.int64)
    places = places.to(kept.boxes.device)
    own = replace(
        kept, boxes=kept.boxes[places], entries=kept.entries[places], level=kept.level[places]
    )
    return index, replace(found, kept=own)


def _all_of(request: ExplainRequest, number: int) -> ExplainRequest:
    return replace(request, score_threshold=0.0, max_detections=number)


def _fields(picture: Tensor, index: Sequence[int], seed: int) -> Tensor:
    """For each box a field of its own: [N, H, W]."""
    height, width = picture.shape[1:]
    own = seed + zlib.crc32(picture.numpy().tobytes())
    return torch.stack([smooth_random_field(height, width, own + place) for place in index])

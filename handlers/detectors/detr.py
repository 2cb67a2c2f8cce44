"""Detection transformers of the transformers library: DETR (Carion et al. 2020), Conditional DETR
(Meng et al. 2021), Deformable DETR (Zhu et al. 2021), RT-DETR (Zhao et al. 2024) and its second
version, D-FINE (Peng et al. 2025).

The decoder's queries are the candidates. The feature maps are what the queries read: the encoder's
output. Every query reads all of them, and through self-attention what the other queries read.

What a gradient means: the library detaches the boxes that a decoder layer hands on to the next, and
where queries are made of the encoder's best cells (RT-DETR, D-FINE, two-stage Deformable DETR) it
detaches those, too, place and content. A gradient says what changes the class and the last
refinement of the box by way of what is read from the maps, the places of reading being where they
are; it does not say why a query looks there. Which cells became queries is held fixed as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert

from handlers.detectors.base import (
    Candidates,
    Entries,
    Features,
    Found,
    Inputs,
    Kept,
    Limits,
    Part,
    PartKind,
    Queries,
    Raw,
)
from handlers.detectors.detr_halves import Decoded, Halves
from handlers.detectors.detr_pictures import SHORTEST_800, STRETCHED_640, Preparation
from handlers.detectors.registry import ADAPTERS
from handlers.images import Geometry, PictureError
from handlers.tap import undisturbed
from handlers.targets.registry import Outputs

# Plain attributes that `transformers_model` puts on a model, and any model may have: what
# preprocessor_config.json holds, and which scores are reported at all.
PREPROCESSOR, SCORE_THRESHOLD = "preprocessor", "score_threshold"
MODELS = "transformers.models"


class QueryDetector:
    """The four verbs; a family says how its logits become scores.

    Boxes are not clipped at the picture's border, as the library does not clip them.
    """

    background = False
    first_label = 0
    # A query reads a few points: without it maps are grains (docs/methods.md).
    defaults: Mapping[str, Any] = {"smooth": 0.2}
    no_gradient: Mapping[str, str] = {}
    no_backbone_gradient = ""
    # The processor's settings where the model brings none.
    processing: Mapping[str, Any] = SHORTEST_800

    def __init__(self, model: Any) -> None:
        # The submodules are typed as Module | Tensor; `Any` keeps their real interfaces.
        self.model = model
        self.halves = Halves(model)
        self.prepared = Preparation(getattr(model, PREPROCESSOR, None) or {}, self.processing)
        self.score_threshold = float(getattr(model, SCORE_THRESHOLD, 0.05))
        with undisturbed(model), torch.no_grad():
            inputs = self.sample()
            maps = self.halves.encode(inputs.tensors)
            self.two_stage = self.halves.choose(inputs.tensors, maps) is not None
        self.names = [str(level) for level in range(len(maps))]

    def probabilities(self, logits: Tensor) -> Tensor:
        """The scores [Q, K] of logits as the model gives them."""
        return logits.sigmoid()

    def prepare(self, picture: Tensor) -> Inputs:
        return self.prepared(picture.to(next(self.model.parameters()).device))

    def sample(self) -> Inputs:
        """A blank square with enough cells for all queries, or the size that anchors are for."""
        config = self.model.config
        side = max(256, 32 * math.ceil(math.sqrt(getattr(config, "num_queries", 0)) / 2))
        height, width = getattr(config, "anchor_image_size", None) or (side, side)
        device = next(self.model.parameters()).device
        frame = Geometry(width, height, float(width), float(height), 1.0, 1.0)
        return Inputs(torch.zeros(1, 3, height, width, device=device), [(height, width)], [frame])

    def features(self, inputs: Inputs) -> Features:
        maps = self.halves.encode(inputs.tensors)
        return Features(inputs, dict(zip(map(str, range(len(maps))), maps, strict=True)))

    def propose(self, features: Features) -> list[Candidates]:
        """The queries. Where they are made of cells of the maps, these are their anchors."""
        proposed = []
        for picture, (height, width) in enumerate(features.inputs.sizes):
            own = features.of(picture)
            maps = list(own.maps.values())
            anchor = torch.arange(self._queries(), device=maps[0].device)
            level = torch.zeros_like(anchor)
            if self.two_stage:
                chosen = self.halves.choose(own.inputs.tensors, maps)
                assert chosen is not None  # the model's layout does not change
                starts = _starts(maps).to(chosen.device)
                level = torch.bucketize(chosen, starts[1:], right=True)
                anchor = chosen - starts[level]
            whole = maps[0].new_tensor([0.0, 0.0, width, height]).expand(len(anchor), 4)
            proposed.append(Candidates(whole, level, level, anchor))
        return proposed

    def _queries(self) -> int:
        number: int = self.model.config.num_queries
        return number

    def score(self, features: Features, candidates: list[Candidates]) -> list[Raw]:
        # One by one: in a batch, float arithmetic might order cells of near equal scores anew.
        raw = []
        for picture, own in enumerate(candidates):
            alone = features.of(picture)
            decoded = self._decoded(alone, list(alone.maps.values()), own)
            scores = self.probabilities(decoded.logits)
            boxes = self._boxes(decoded.boxes, alone.inputs)
            raw.append(Raw(decoded.logits[:, : scores.shape[1]], scores, boxes[:, None]))
        return raw

    def _decoded(
        self, features: Features, maps: Sequence[Tensor], candidates: Candidates
    ) -> Decoded:
        chosen = None
        if self.two_stage:
            starts = _starts(maps).to(candidates.level.device)
            chosen = starts[candidates.level] + candidates.anchor
        return self.halves.decode(features.inputs.tensors, maps, chosen)

    def _boxes(self, shares: Tensor, inputs: Inputs) -> Tensor:
        height, width = inputs.sizes[0]
        corners: Tensor = box_convert(shares, "cxcywh", "xyxy")
        return corners * corners.new_tensor([width, height, width, height])

    def select(
        self, features: Features, candidates: list[Candidates], raw: list[Raw]
    ) -> list[Kept]:
        found = []
        for picture, (own, each) in enumerate(zip(candidates, raw, strict=True)):
            before = self.entries(each)
            entries = before[: self.limits().detections]
            found.append(
                Kept(
                    boxes=features.inputs.on_picture(entries.boxes, picture),
                    entries=entries,
                    level=own.level[entries.candidate],
                    before=before,
                    survivors=torch.arange(len(before), device=before.labels.device),
                )
            )
        return found

    def entries(self, raw: Raw) -> Entries:
        """Everything above the threshold, best first; what the processor reports comes first, in
        its order."""
        classes = raw.scores.shape[1]
        scores = raw.scores.flatten()
        _, best = scores.topk(min(self.limits().detections, len(scores)))
        others = torch.ones_like(scores, dtype=torch.bool)
        others[best] = False
        rest = torch.where(others & (scores > self.score_threshold))[0]
        rest = rest[scores[rest].argsort(descending=True, stable=True)]
        places = torch.cat([best[scores[best] > self.score_threshold], rest])
        candidate, label = places // classes, places % classes
        return Entries(raw.boxes_of(candidate, label), label, scores[places], candidate)

    def limits(self) -> Limits:
        return Limits(score=self.score_threshold, iou=1.0, detections=self._queries())

    def num_classes(self) -> int:
        number: int = self.model.config.num_labels
        return number

    def level_names(self) -> list[str]:
        return self.names

    def parts(self) -> Mapping[str, PartKind]:
        return {"decoder": PartKind(("logits", "scores", "boxes"), pooled=False)}

    def on_grid(self, frame: Geometry, height: int, width: int) -> Geometry:
        """Places a map of height x width cells whose network input has geometry `frame`."""
        return frame.on_samples(height, width)

    def part(self, name: str, found: Found, chosen: Entries) -> Part:
        def outputs(maps: Sequence[Tensor]) -> Outputs:
            decoded = self._decoded(found.features, maps, found.candidates)
            logits = decoded.logits[chosen.candidate]
            scores = self.probabilities(logits)
            return Outputs(
                labels=chosen.labels,
                logits=logits[:, : scores.shape[1]],
                scores=scores.gather(1, chosen.labels[:, None])[:, 0],
                boxes=self._boxes(decoded.boxes[chosen.candidate], found.features.inputs),
            )

        return Queries(found.candidates.level[chosen.candidate], outputs)


def _starts(maps: Sequence[Tensor]) -> Tensor:
    """Where the cells of each map begin, were those of all maps in one row; maps that a model adds
    to these count to the last."""
    counts = [each.shape[-2] * each.shape[-1] for each in maps]
    return torch.tensor([0, *accumulate(counts[:-1])])


@ADAPTERS.register(f"{MODELS}.detr.modeling_detr.DetrForObjectDetection")
class DetrDetector(QueryDetector):
    """Softmax with a label of its own for "no object"; a query reports its best label alone.

    Best score first, where the library's processor keeps the order of the queries.
    """

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)[..., :-1]

    def entries(self, raw: Raw) -> Entries:
        scores, labels = raw.scores.max(-1)
        candidate = scores.argsort(descending=True, stable=True)
        candidate = candidate[scores[candidate] > self.score_threshold]
        best = labels[candidate]
        return Entries(raw.boxes_of(candidate, best), best, scores[candidate], candidate)

    def limits(self) -> Limits:
        return replace(super().limits(), best_label=True)


@ADAPTERS.register(
    f"{MODELS}.deformable_detr.modeling_deformable_detr.DeformableDetrForObjectDetection"
)
@ADAPTERS.register(
    f"{MODELS}.conditional_detr.modeling_conditional_detr.ConditionalDetrForObjectDetection"
)
class DeformableDetrDetector(QueryDetector):
    """Sigmoid; the 100 best pairs of a query and a label, as the library's processors report."""

    def _queries(self) -> int:
        config = self.model.config
        if getattr(config, "two_stage", False):
            number: int = config.two_stage_num_proposals
            return number
        return super()._queries()

    def limits(self) -> Limits:
        return Limits(score=self.score_threshold, iou=1.0, detections=100)


@ADAPTERS.register(f"{MODELS}.rt_detr.modeling_rt_detr.RTDetrForObjectDetection")
@ADAPTERS.register(f"{MODELS}.rt_detr_v2.modeling_rt_detr_v2.RTDetrV2ForObjectDetection")
@ADAPTERS.register(f"{MODELS}.d_fine.modeling_d_fine.DFineForObjectDetection")
class RTDetrDetector(QueryDetector):
    """Sigmoid; as many pairs of a query and a label as there are queries. Pictures are stretched
    to 640 x 640 pixels and not normalised, unless the model brings other settings."""

    processing = STRETCHED_640

    def prepare(self, picture: Tensor) -> Inputs:
        inputs = super().prepare(picture)
        height, width = inputs.sizes[0]
        strides = sorted(self.model.config.feat_strides)
        for side in (height, width):
            cells = [stride * math.ceil(side / stride) for stride in strides]
            if len(set(cells)) > 1:  # the encoder adds each map to the next finer one
                raise PictureError(
                    f"this detector cannot take {width} x {height} pixels of network input:"
                    f" expected multiples of {strides[-1]}; change the preprocessor's size"
                )
        return inputs

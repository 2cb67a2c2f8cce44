"""The four verbs that make a detector explainable, and what passes between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops.boxes import clip_boxes_to_image

from handlers.images import Geometry
from handlers.schema import Detections
from handlers.targets.registry import Outputs


@dataclass(frozen=True)
class Inputs:
    """Pictures as the network takes them, all of one padded size.

    tensors: float32 [B, 3, h, w], normalised and padded.
    sizes: each picture's (height, width) before padding.
    geometries: where the padded input lies on each picture.
    late_clip: boxes may reach beyond the picture until `on_picture` cuts them, as YOLO's do.
    """

    tensors: Tensor
    sizes: list[tuple[int, int]]
    geometries: list[Geometry]
    late_clip: bool = False

    def on_picture(self, boxes: Tensor, picture: int = 0) -> Tensor:
        """Boxes [N, 4] in pixels of the network input (were it not mirrored): in pixels of the
        picture."""
        geometry = self.geometries[picture].upright()
        size = (geometry.picture_height, geometry.picture_width)
        if self.late_clip or geometry.offset_x or geometry.offset_y:
            clipped: Tensor = clip_boxes_to_image(geometry.boxes_on_picture(boxes), size)
            return clipped
        # As torchvision computes it, to the bit.
        resized: Tensor = resize_boxes(boxes, list(self.sizes[picture]), list(size))
        return resized


@dataclass(frozen=True)
class Features:
    """maps: feature maps by name, finest first, each [B, C, h, w]."""

    inputs: Inputs
    maps: dict[str, Tensor]

    def of(self, picture: int) -> Features:
        """Those of one picture of the batch (B = 1)."""
        own, inputs = slice(picture, picture + 1), self.inputs
        return Features(
            replace(
                inputs,
                tensors=inputs.tensors[own],
                sizes=inputs.sizes[own],
                geometries=inputs.geometries[own],
            ),
            {name: each[own] for name, each in self.maps.items()},
        )


@dataclass(frozen=True)
class Candidates:
    """One picture's candidates: proposals, or the anchors themselves.

    boxes: [R, 4], x1, y1, x2, y2 in pixels of the network input.
    level: int64 [R], the feature map (its place in `Features.maps`) that emits class and edges.
    anchor_level, anchor: int64 [R], where the anchor of each stands: the feature map, and the place
        among that map's anchors (rows of cells, a cell's anchors side by side).
    """

    boxes: Tensor
    level: Tensor
    anchor_level: Tensor
    anchor: Tensor


@dataclass(frozen=True)
class Raw:
    """The head's outputs for one picture's candidates, before any threshold.

    logits: [R, K]. scores: [R, K], 0 ... 1, as the detector reports them.
    boxes: [R, K, 4], or [R, 1, 4] where all categories share one; decoded, clipped, in pixels of
        the network input.
    pooled: [R, C, p, q], what the head saw of each candidate; None for a convolutional head.
    """

    logits: Tensor
    scores: Tensor
    boxes: Tensor
    pooled: Tensor | None = None

    def boxes_of(self, candidate: Tensor, label: Tensor) -> Tensor:
        """[N, 4]: the box that each candidate gives to a label."""
        return self.boxes[candidate, label if self.boxes.shape[1] > 1 else 0]


@dataclass(frozen=True)
class Entries:
    """Pairs of a candidate and a label, each with a box (pixels of the network input) and score."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    candidate: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, places: Tensor | slice) -> Entries:
        return Entries(
            self.boxes[places], self.labels[places], self.scores[places], self.candidate[places]
        )


@dataclass(frozen=True)
class Kept:
    """One picture's final detections and where they came from.

    boxes: [N, 4] as in Detections (picture pixels); entries: the same in the network input, with
    labels, scores and candidates; level: int64 [N] into the names of the feature maps.
    before: what non-maximum suppression saw; survivors: int64, those of `before` that it left, best
    first. The detections are the first N of them.
    """

    boxes: Tensor
    entries: Entries
    level: Tensor
    before: Entries
    survivors: Tensor


@dataclass(frozen=True)
class Found:
    """What the four verbs gave for one picture; features: its own (B = 1)."""

    features: Features
    candidates: Candidates
    raw: Raw
    kept: Kept

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network input before padding."""
        return self.features.inputs.sizes[0]

    @property
    def frame(self) -> Geometry:
        """Where the padded network input lies on the picture."""
        return self.features.inputs.geometries[0]

    @property
    def maps(self) -> list[Tensor]:
        """The feature maps, finest first, [1, C, h, w] each."""
        return list(self.features.maps.values())


@dataclass(frozen=True)
class Limits:
    """What drops candidates: a score must be above `score`; among boxes of one label whose IoU is
    above `iou` the best survives; at most `detections` are reported. strongest: at most so many
    candidates enter suppression from each `strongest_of`, None for all. best_label: a candidate
    counts for its best label alone. otherwise: what else dropped one, in words."""

    score: float
    iou: float
    detections: int
    strongest: int | None = None
    strongest_of: str = ""
    best_label: bool = False
    otherwise: str = ""


@dataclass(frozen=True)
class LinearStart:
    """How a head begins that sees the pooled features through one linear layer.

    weight: [D, C, p, q]; bias: [D] or None; what the layer gives is bias + sum(weight * pooled).
    rest: outputs of what the layer gave [n, D] for detections at int64 places [n], which may
    repeat, row by row and differentiable; it may overwrite its argument where there is no graph.
    """

    weight: Tensor
    bias: Tensor | None
    rest: Callable[[Tensor, Tensor], Outputs]


@dataclass(frozen=True)
class RoIs:
    """Outputs that each of N detections has from its own pooled features.

    pooled: [N, C, p, q]. frames: [N, 4], what was pooled, in pixels of the network input.
    level: int64 [N]. head_at: outputs of pooled features [n, C, p, q] of detections at int64 places
        [n], which may repeat, row by row and differentiable.
    pool: `pooled` from feature maps [1, C, h, w], differentiable.
    matrices: for detections (places [n]) of one level rows [n, p, h] and columns [n, q, w] with
        pooled[n, c] = rows[n] @ map[c] @ columns[n]^T.
    least: for a level the fewest pixels of the network input that are pooled along an axis.
    linear: how the head begins, where that is one linear layer.
    """

    pooled: Tensor
    frames: Tensor
    level: Tensor
    head_at: Callable[[Tensor, Tensor], Outputs]
    pool: Callable[[Sequence[Tensor]], Tensor]
    matrices: Callable[[Tensor, int], tuple[Tensor, Tensor]]
    least: Callable[[int], float]
    linear: LinearStart | None = None

    def head(self, pooled: Tensor) -> Outputs:
        """All N detections' outputs from `pooled`, row by row and differentiable."""
        return self.head_at(pooled, torch.arange(len(self.frames), device=pooled.device))

    def outputs(self, maps: Sequence[Tensor]) -> Outputs:
        """All N detections' outputs from feature maps [1, C, h, w]."""
        return self.head(self.pool(maps))


@dataclass(frozen=True)
class Cells:
    """Outputs that each of N detections reads from one cell of a convolutional head.

    level, row, column: int64 [N], where.
    convolve: the head on maps [B, C, h, w] of a level. convolve_all: on all feature maps,
        for a head that takes them together; None for one that takes them one by one.
    whole: what the whole maps gave for each detection, to hold faster ways against; None where it
        was not kept.
    read: outputs of detections (places [n]) from what `convolve` gave: (batch [n], row [n],
        column [n]) say where each is found.
    reach: for a level how many cells around its own a detection's outputs depend on, None if on
        all. convolutions: the modules of the head that look beyond a cell.
    """

    level: Tensor
    row: Tensor
    column: Tensor
    convolve: Callable[[Tensor, int], Mapping[str, Tensor]]
    read: Callable[[Mapping[str, Tensor], Tensor, tuple[Tensor, Tensor, Tensor]], Outputs]
    reach: Callable[[int], int | None]
    convolutions: Callable[[int], list[nn.Module]]
    convolve_all: Callable[[Sequence[Tensor]], Sequence[Mapping[str, Tensor]]] | None = None
    whole: Outputs | None = None

    def outputs(self, maps: Sequence[Tensor]) -> Outputs:
        """All N detections' outputs from feature maps [1, C, h, w]."""
        several, outputs = [], []
        heads = self.convolve_all(maps) if self.convolve_all else None
        for level in self.level.unique().tolist():
            places = torch.where(self.level == level)[0]
            head = heads[level] if heads else self.convolve(maps[level], level)
            outputs.append(self._read(head, places))
            several.append(places)
        return Outputs.cat(outputs).rows(torch.cat(several).argsort())

    def outputs_at(self, maps: Tensor, level: int, places: Tensor) -> Outputs:
        """The outputs of the detections at `places` from their own level's map [1, C, h, w]."""
        return self._read(self.convolve(maps, level), places)

    def _read(self, head: Mapping[str, Tensor], places: Tensor) -> Outputs:
        where = (torch.zeros_like(places), self.row[places], self.column[places])
        return self.read(head, places, where)


@dataclass(frozen=True)
class Queries:
    """Outputs that each of N detections reads from all the feature maps together, as the decoder of
    a transformer does.

    level: int64 [N], the feature map that stands for each. outputs: all N detections' outputs from
    feature maps [1, C, h, w], differentiable.
    """

    level: Tensor
    outputs: Callable[[Sequence[Tensor]], Outputs]


Part = RoIs | Cells | Queries


@dataclass(frozen=True)
class AllParts:
    """All parts of a detector, for targets that may read outputs of several; for the same N
    detections each."""

    parts: Sequence[Part]

    @property
    def level(self) -> Tensor:
        """int64 [N]: the feature maps that emitted class and edges."""
        return self.parts[0].level

    def outputs(self, maps: Sequence[Tensor]) -> Outputs:
        """All N detections' outputs from feature maps [1, C, h, w]."""
        first, *others = (part.outputs(maps) for part in self.parts)
        for each in others:
            first = first.with_(**{name: each[name] for name in each.names()})
        return first


@dataclass(frozen=True)
class PartKind:
    """outputs: the names of a part's `Outputs`. pooled: it is `RoIs`, else `Cells` or `Queries`.
    keypoints: how many there are in its keypoint_logits."""

    outputs: tuple[str, ...]
    pooled: bool
    keypoints: int = 0


class Detector(Protocol):
    """A detector family behind the four verbs; `handlers/detectors/` has one file for each."""

    model: nn.Module
    background: bool  # label 0 is the background
    first_label: int  # 1 where the background is never reported, else 0
    # Fields of ExplainRequest where a request and the archive leave them out.
    defaults: Mapping[str, Any]
    # By the names of outputs: why they have no gradient, and what to change.
    no_gradient: Mapping[str, str]
    # Why the feature maps have none with respect to modules before them; "" if they have.
    no_backbone_gradient: str

    def prepare(self, picture: Tensor) -> Inputs:
        """One uint8 picture [3, H, W] as network input (B = 1). Raises PictureError."""

    def sample(self) -> Inputs:
        """Inputs of a small blank picture, to see what the network's modules give."""

    def features(self, inputs: Inputs) -> Features:
        """The feature maps, each [B, C, h, w]: the expensive part."""

    def propose(self, features: Features) -> list[Candidates]:
        """For each picture its candidates."""

    def score(self, features: Features, candidates: list[Candidates]) -> list[Raw]:
        """The head's outputs for each picture's candidates."""

    def select(
        self, features: Features, candidates: list[Candidates], raw: list[Raw]
    ) -> list[Kept]:
        """Exactly the boxes, labels, scores and order of the stock model, with provenance."""

    def limits(self) -> Limits:
        """What `select` drops candidates by."""

    def num_classes(self) -> int:
        """How many categories the head tells apart, the background included."""

    def level_names(self) -> list[str]:
        """Names of the feature maps, finest first."""

    def parts(self) -> Mapping[str, PartKind]:
        """The parts that have outputs to explain, by name."""

    def on_grid(self, frame: Geometry, height: int, width: int) -> Geometry:
        """Places a map of height x width cells whose padded network input has geometry `frame`."""

    def part(self, name: str, found: Found, chosen: Entries) -> Part:
        """One part for `chosen` pairs of a picture: its outputs, differentiable."""


def to_detections(kept: Kept, level_names: Sequence[str]) -> Detections:
    """Provenance by name, on the CPU."""
    return Detections(
        boxes=kept.boxes.cpu(),
        labels=kept.entries.labels.cpu(),
        scores=kept.entries.scores.cpu(),
        candidate=kept.entries.candidate.cpu(),
        level=tuple(level_names[index] for index in kept.level.tolist()),
    )

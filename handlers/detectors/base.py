"""The four verbs that make a detector explainable, and what passes between them.

    features   = detector.features(images)            the expensive part, run once
    candidates = detector.propose(features)           RoIs or anchors; never differentiated
    raw        = detector.score(features, candidates) logits and boxes: differentiable
    kept       = detector.select(features, candidates, raw)  threshold and NMS, with provenance

`regions` then hands out the kept candidates' own inputs to the head, one each, so that one backward
pass serves them all: a kept candidate's outputs depend on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from handlers.images import Geometry
from handlers.schema import Detections


@dataclass(frozen=True)
class Inputs:
    """Pictures as the network takes them, all of one padded size.

    tensors: float32 [B, 3, h, w], normalised and padded.
    sizes: each picture's (height, width) before padding.
    geometries: where the padded input lies on each picture.
    """

    tensors: Tensor
    sizes: list[tuple[int, int]]
    geometries: list[Geometry]


@dataclass(frozen=True)
class Features:
    """maps: feature maps by name, finest first, each [B, C, h, w]."""

    inputs: Inputs
    maps: dict[str, Tensor]


@dataclass(frozen=True)
class Raw:
    """The head's outputs for candidates, before any threshold.

    pooled: [R, C, p, q], what the head saw of each candidate.
    logits: [R, K]; boxes: [R, K, 4] decoded, clipped, in pixels of the network input.
    """

    pooled: Tensor
    logits: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class Kept:
    """One picture's final detections and where they came from.

    boxes, labels, scores as in Detections (picture pixels); candidate: int64 [N] into the picture's
    candidates; level: int64 [N] into the names of the feature maps.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    candidate: Tensor
    level: Tensor


@dataclass(frozen=True)
class Regions:
    """Candidates of one picture that were emitted by the same feature map.

    activation: [C, h, w], that map.
    pooled: [N, C, p, q], the head's input for each candidate:
        pooled[n, c] = rows[n] @ activation[c] @ columns[n]^T.
    geometry: places the map on the picture. crops: place each candidate's pooled grid on it.
    """

    level: str
    activation: Tensor
    pooled: Tensor
    rows: Tensor
    columns: Tensor
    geometry: Geometry
    crops: list[Geometry]


class Detector(Protocol):
    """A detector family behind the four verbs; `handlers/detectors/` has one file for each."""

    def prepare(self, picture: Tensor) -> Inputs:
        """One uint8 picture [3, H, W] as network input (B = 1). Raises PictureError."""

    def features(self, inputs: Inputs) -> Features:
        """The feature maps, each [B, C, h, w]: the expensive part."""

    def propose(self, features: Features) -> list[Tensor]:
        """For each picture the candidates' boxes [R, 4], in pixels of the network input."""

    def score(self, features: Features, candidates: list[Tensor]) -> list[Raw]:
        """The head's outputs for each picture's candidates: R of each in `Raw`."""

    def select(self, features: Features, candidates: list[Tensor], raw: list[Raw]) -> list[Kept]:
        """Exactly the boxes, labels, scores and order of the stock model, with provenance."""

    def num_classes(self) -> int:
        """How many categories the head tells apart, the background included."""

    def level_names(self) -> list[str]:
        """Names of the feature maps that can emit a detection, finest first."""

    def regions(
        self, features: Features, picture: int, frames: Tensor, level: int, pooled: Tensor
    ) -> Regions:
        """The inputs to the head of candidates `frames` [N, 4], which `level` emitted."""

    def head(self, pooled: Tensor, frames: Tensor, size: tuple[int, int]) -> Raw:
        """`score` for candidates whose pooled input is at hand: differentiable in `pooled`."""

    def targets(self) -> list[str]:
        """Names of what can be explained."""

    def target(self, name: str, raw: Raw, labels: Tensor) -> Sequence[Tensor]:
        """The scalars [N] to differentiate, one for each region; where there are several, the
        explanation is the elementwise maximum of their maps."""


def to_detections(kept: Kept, level_names: Sequence[str]) -> Detections:
    """Provenance by name, on the CPU."""
    return Detections(
        boxes=kept.boxes.cpu(),
        labels=kept.labels.cpu(),
        scores=kept.scores.cpu(),
        candidate=kept.candidate.cpu(),
        level=tuple(level_names[index] for index in kept.level.tolist()),
    )

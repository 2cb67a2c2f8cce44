"""What all works share: alternating rounds, rows of the table, and reasons not to run."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from handlers.explainer import Explainer
from handlers.schema import Detections, Explanation
from tests.conftest import random_picture

# In a verdict: the two sides did not give the same.
DIFFER = "DIFFER"
# Names the folder with `bccd/`: pictures and a detector trained on them.
DATA = "WHYBOX_DATA"


class SkippedError(Exception):
    """A work that cannot run here; the message says why, and what to do."""


@dataclass(frozen=True)
class Settings:
    """rounds: how often each side runs, after one run that is not counted. masks: of D-RISE.
    tiny: small networks' worth of work, to see that a work runs; its figures mean nothing."""

    rounds: int = 5
    device: str = "cpu"
    masks: int = 1000
    tiny: bool = False

    def clock(self) -> float:
        """Seconds, when all that the device was asked for is done."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    def picture(self, seed: int = 0) -> Tensor:
        """uint8 [3, 480, 640]."""
        return random_picture(96, 128, seed) if self.tiny else random_picture(480, 640, seed)

    def sized(self, **options: Any) -> dict[str, Any]:
        """Options of a detector that resizes pictures itself."""
        return {**options, "min_size": 96, "max_size": 128} if self.tiny else options


@dataclass(frozen=True)
class Goal:
    """A figure's limit, to stay below or to reach."""

    limit: float
    at_most: bool = True

    def met(self, value: float) -> bool:
        """`value` is on the right side."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    case: what was run. measure: what `value` is, the median over rounds; spread: its least and
    largest. ours, other: median seconds of the two sides. same: what was compared of what they
    gave, and how it came out. note: what a reader has to know. figures: more for the JSON.
    """

    case: str
    measure: str
    value: float
    spread: tuple[float, float]
    ours: float | None = None
    other: float | None = None
    goal: Goal | None = None
    same: str = ""
    note: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wrong(self) -> bool:
        """Beyond its limit, or not what the other side computed."""
        missed = self.goal is not None and not self.goal.met(self.value)
        return missed or DIFFER in self.same


@dataclass(frozen=True)
class Work:
    """A part of the benchmark. title: for the table. run: its rows, as they come."""

    title: str
    run: Callable[[Settings], Iterator[Row]]


Side = Callable[[], Any]


def alternate(settings: Settings, **sides: Side) -> dict[str, list[float]]:
    """Seconds of each side's every round. The sides take turns, and every other round the other way
    round, so that a machine that slows down meanwhile slows all alike."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(settings.rounds):
        for name in sorted(sides, reverse=bool(number % 2)):
            start = settings.clock()
            sides[name]()
            seconds[name].append(settings.clock() - start)
    return seconds


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Round by round."""
    return [one / other for one, other in zip(over, under, strict=True)]


def middle(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The least and the largest."""
    return min(values), max(values)


@contextmanager
def added_seconds(explainer: Explainer, settings: Settings) -> Iterator[list[float]]:
    """Seconds spent on explaining each picture once its boxes are known, appended as they come."""
    explain_found = explainer.explain_found
    added: list[float] = []

    def timed(*arguments: Any) -> list[Explanation]:
        start = settings.clock()
        explanations = explain_found(*arguments)
        added.append(settings.clock() - start)
        return explanations

    vars(explainer)["explain_found"] = timed
    try:
        yield added
    finally:
        del vars(explainer)["explain_found"]


def data_folder(name: str) -> Path:
    """A folder of WHYBOX_DATA. Raises SkippedError."""
    folder = Path(os.environ.get(DATA, "")) / name
    if not os.environ.get(DATA) or not folder.is_dir():
        raise SkippedError(f"needs {DATA}, a folder with {name}/ in it")
    return folder


def difference(ours: Tensor, other: Tensor) -> float:
    """The largest difference of two maps, as a share of the other's largest absolute value."""
    largest = float(other.abs().max())
    return float((ours - other).abs().max()) / largest if largest else float(ours.abs().max())


def equal(largest: float, tolerance: float = 1e-3) -> str:
    """The verdict on the largest difference of two maps."""
    verdict = "maps agree" if largest <= tolerance else f"maps {DIFFER}"
    return f"{verdict}: {largest:.1e} of the largest value at most"


def found_again(boxes: Tensor, labels: Tensor, among: Detections, overlap: float = 0.95) -> Tensor:
    """For each of boxes [N, 4] the place of a detection of the same label that overlaps it most,
    -1 where none has an IoU over `overlap`: int64 [N]."""
    if not len(among):
        return torch.full((len(boxes),), -1)
    overlaps = box_iou(boxes.cpu(), among.boxes.cpu())
    overlaps *= labels.cpu()[:, None] == among.labels.cpu()
    best, place = overlaps.max(1)
    found: Tensor = place.where(best > overlap, -1)
    return found


def same_boxes(ours: Detections, other: Mapping[str, Tensor], tolerance: float = 1e-3) -> str:
    """The verdict on what we found beside what torchvision's model did: as many, in the same order,
    with the same labels; corners within `tolerance` pixels, scores within `tolerance`. On a GPU,
    where torchvision's rounds otherwise, 99 % found again."""
    if ours.boxes.is_cuda:
        share = float((found_again(other["boxes"], other["labels"], ours) >= 0).float().mean())
        return f"boxes {'agree' if share >= 0.99 else DIFFER}: {share:.1%} found again"
    names = ("boxes", "labels", "scores")
    pairs = [(getattr(ours, name).double(), other[name].double()) for name in names]
    if len(ours) != len(other["boxes"]):
        return f"boxes {DIFFER}: {len(ours)} against {len(other['boxes'])}"
    if not len(ours):
        return "boxes agree: there are none"
    corners, labels, scores = (float((one - two).abs().max()) for one, two in pairs)
    verdict = "agree" if max(corners, scores) <= tolerance and not labels else DIFFER
    return f"{len(ours)} boxes {verdict}: {corners:.1e} px, scores {scores:.1e} at most"

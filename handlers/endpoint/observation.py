"""What is known of a request when it is answered, for the log and the metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from handlers.schema import ExplainRequest

DECODE, DETECT, EXPLAINING, ENCODE = STAGES = ("decode", "detect", "explain", "encode")
T = TypeVar("T")


@dataclass
class Observation:
    """One picture of a request, filled in as its answer comes about.

    method, target, layer: that were asked of it, with the defaults filled in; "" for a prediction.
    width, height: of the picture, 0 before it is decoded. detections: that the detector reported.
    explanations: boxes that were explained. seconds: spent in each of STAGES; of a forward pass
    that pictures share, each has an equal part. status, reason: of its answer; the reason is the
    kind of error, "" for none.
    """

    method: str = ""
    target: str = ""
    layer: str = ""
    width: int = 0
    height: int = 0
    detections: int = 0
    explanations: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    status: int = 0
    reason: str = ""

    def asked(self, request: ExplainRequest) -> None:
        """Notes what an explanation is to be of, once that is known to be valid: a metric for every
        name that comes to a client's mind would be too many."""
        self.method, self.target = request.method, request.target_name
        self.layer = ",".join(request.layers)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time that its body takes, also where that raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent(stage, time.perf_counter() - start)

    def spent(self, stage: str, seconds: float) -> None:
        """Adds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def detecting(found: Iterator[T], pictures: Sequence[Observation]) -> Iterator[T]:
    """The same results, with the time that it took to find them shared among the pictures."""
    seconds = 0.0
    try:
        while True:
            start = time.perf_counter()
            try:
                following = next(found)
            except StopIteration:
                break
            finally:
                seconds += time.perf_counter() - start
            yield following
    finally:
        for each in pictures:
            each.spent(DETECT, seconds / len(pictures))

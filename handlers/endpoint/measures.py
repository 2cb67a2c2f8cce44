"""From what was answered to numbers for the metrics.

Each worker sends what it has measured as text; the server adds it up and shows it to Prometheus.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from handlers.endpoint.declared import (
    ARCHIVE,
    BATCH,
    DETECTIONS,
    EXPLAINED,
    EXPLANATIONS,
    PICTURES,
    REJECTED,
    REQUESTS,
    SECONDS,
    Metric,
)
from handlers.endpoint.items import EXPLAIN
from handlers.endpoint.observation import STAGES
from handlers.endpoint.report import Report


@dataclass(frozen=True)
class Measure:
    """What is added to a part of a metric. labels: values of its dimensions."""

    part: str
    kind: str
    value: float
    labels: tuple[str, ...] = ()


class _Sums:
    """Adds up what a batch has, so that each set of labels is one line of text to the server."""

    def __init__(self) -> None:
        self.values: defaultdict[tuple[str, str, tuple[str, ...]], float] = defaultdict(float)

    def add(self, metric: Metric, value: float, *labels: str) -> None:
        """To a counter."""
        self.values[metric.name, metric.server_kind, labels] += value

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """One value of a histogram: it counts in all buckets that it is not above."""
        bucket, total, count = metric.parts()
        for bound in metric.bounds(value):
            self.values[bucket, metric.server_kind, (*labels, bound)] += 1
        self.values[total, metric.server_kind, labels] += value
        self.values[count, metric.server_kind, labels] += 1

    def measures(self) -> Iterator[Measure]:
        """What is not nothing."""
        for (part, kind, labels), value in self.values.items():
            if value:
                yield Measure(part, kind, round(value, 6), labels)


def measures(reports: Sequence[Report]) -> Iterator[Measure]:
    """What a batch adds."""
    sums = _Sums()
    for report in reports:
        sums.add(REQUESTS, 1, report.item.verb, str(report.answer.status))
        if report.answer.reason and not any(each.reason for each in report.pictures):
            sums.add(REJECTED, 1, report.answer.reason)
        for each in report.pictures:
            sums.add(PICTURES, each.width > 0)
            sums.add(DETECTIONS, each.detections)
            if each.reason:
                sums.add(REJECTED, 1, each.reason)
            if report.item.verb == EXPLAIN:
                method = each.method or "unknown"
                sums.add(EXPLANATIONS, 1, method, str(each.status))
                sums.add(EXPLAINED, each.explanations, method)
            for stage, seconds in each.seconds.items():
                sums.observe(SECONDS, seconds, stage)
    if reports:
        sums.observe(BATCH, reports[0].batch)
    return sums.measures()


def first_measures(digest: str) -> Iterator[Measure]:
    """Which archive is served, and nothing in each bucket: a bucket that appears with its first
    value has no rate, and leaves a gap in a quantile."""
    yield Measure(ARCHIVE.name, ARCHIVE.server_kind, 1, (digest,))
    for metric, labels in (*((SECONDS, (stage,)) for stage in STAGES), (BATCH, ())):
        bucket, total, count = metric.parts()
        for bound in metric.bounds():
            yield Measure(bucket, metric.server_kind, 0, (*labels, bound))
        yield Measure(total, metric.server_kind, 0, labels)
        yield Measure(count, metric.server_kind, 0, labels)

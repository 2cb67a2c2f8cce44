"""From what was answered to numbers for the metrics.

Each worker sends what it has measured as text; the server adds it up and shows it to Prometheus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from handlers.endpoint.declared import (
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
from handlers.endpoint.report import Report


@dataclass(frozen=True)
class Measure:
    """One number for a metric. labels: values of its dimensions."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


def measures(reports: Sequence[Report]) -> Iterator[Measure]:
    """What a batch adds. Counters come once for each set of labels: a line of text each."""
    counts: Counter[tuple[Metric, tuple[str, ...]]] = Counter()
    for report in reports:
        counts[REQUESTS, (report.item.verb, str(report.answer.status))] += 1
        if report.answer.reason and not any(each.reason for each in report.pictures):
            counts[REJECTED, (report.answer.reason,)] += 1
        for each in report.pictures:
            counts[PICTURES, ()] += each.width > 0
            counts[DETECTIONS, ()] += each.detections
            if each.reason:
                counts[REJECTED, (each.reason,)] += 1
            if report.item.verb == EXPLAIN:
                method = each.method or "unknown"
                counts[EXPLANATIONS, (method, str(each.status))] += 1
                counts[EXPLAINED, (method,)] += each.explanations
            for stage, seconds in each.seconds.items():
                yield Measure(SECONDS, round(seconds, 6), (stage,))
    for (metric, labels), count in counts.items():
        if count:
            yield Measure(metric, count, labels)
    if reports:
        yield Measure(BATCH, reports[0].batch)

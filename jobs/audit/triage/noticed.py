"""What is noticed on the way: counted whole, and kept as far as a person can look at it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from jobs.audit.findings import Finding
from jobs.audit.triage.kept import Worst

LOW_ENERGY, OUTSIDE = "low energy", "evidence outside the box"
SCATTERED, UNSTABLE = "scattered evidence", "unstable"
MISSED, FALSE_ALARM = "missed object", "false alarm"
WRONG_CATEGORY, BADLY_PLACED, SECOND_BOX = "wrong category", "badly placed box", "second box"
FLAGS = (
    *(MISSED, FALSE_ALARM, WRONG_CATEGORY, BADLY_PLACED, SECOND_BOX),
    *(UNSTABLE, OUTSIDE, LOW_ENERGY, SCATTERED),
)


@dataclass(frozen=True)
class Noticed:
    """A finding, whose picture's key in the store is `key`, and the category that it is about."""

    key: str
    category: str
    finding: Finding


class Findings:
    """The worst findings of each kind, `most` of them, and how many there were by category."""

    def __init__(self, most: int) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._kept = {flag: Worst[Noticed](most) for flag in FLAGS}

    def add(self, noticed: Noticed) -> None:
        """Counts and keeps it."""
        self.counts[noticed.finding.flag, noticed.category] += 1
        self.keep(noticed)

    def keep(self, noticed: Noticed) -> None:
        """Keeps one that is counted elsewhere."""
        self._kept[noticed.finding.flag].add(noticed.finding.severity, noticed)

    def count(self, flag: str, category: str, number: int) -> None:
        """Counts what is kept only in part."""
        if number:
            self.counts[flag, category] += number

    def all(self) -> list[Noticed]:
        """What was kept, the worst first; of equals by picture and place."""
        found = (each for kept in self._kept.values() for each in kept.items())
        return sorted(found, key=_order)


def _order(noticed: Noticed) -> tuple[float, str, int, str]:
    finding = noticed.finding
    return -finding.severity, finding.key, finding.index or 0, finding.flag


def by_picture(found: Iterable[Noticed]) -> dict[str, list[Noticed]]:
    """By the pictures' keys in the store, in the order of each one's first: a picture's rank is its
    worst finding."""
    pictures: dict[str, list[Noticed]] = {}
    for each in found:
        pictures.setdefault(each.key, []).append(each)
    return pictures

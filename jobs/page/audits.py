"""What the parts of an audit left in a run's output, and whether its figures reach their
thresholds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from archives.errors import MissingObjectError
from archives.registry.audit_report import AuditReport
from archives.stores.store import Store
from jobs.audit.findings import AUDIT, Finding, Part, read_part

REPORT = "audit.json"
# Parts that there are names for come in this order, others after them.
ORDER = ("evaluation", "sanity", "shortcuts", "changes", "triage")
NAME = re.compile(rf"{AUDIT}([A-Za-z0-9_-]+)\.json")


def read_parts(output: Store, findings: bool = True) -> tuple[Part, ...]:
    """Every part of the output's audit; none where there was no audit.

    findings: False for parts without them, which takes a small read each.
    """
    try:
        keys = [entry.key for entry in output.entries(AUDIT)]
    except MissingObjectError:
        return ()
    names = [found[1] for key in keys if (found := NAME.fullmatch(key))]
    names.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    parts = (read_part(output, name, findings) for name in names)
    return tuple(part for part in parts if part is not None)


@dataclass(frozen=True)
class Flags:
    """The findings of all parts by what they are about, the worst first.

    by_box: of a detection, by (key, index). by_picture: of a picture as a whole, by its key.
    """

    by_box: dict[tuple[str, int], list[tuple[Part, Finding]]]
    by_picture: dict[str, list[tuple[Part, Finding]]]

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Flags:
        """Of the parts' findings."""
        found = cls({}, {})
        for part in parts:
            for each in part.findings:
                if each.index is None:
                    found.by_picture.setdefault(each.key, []).append((part, each))
                else:
                    found.by_box.setdefault((each.key, each.index), []).append((part, each))
        for several in (*found.by_box.values(), *found.by_picture.values()):
            several.sort(key=lambda pair: -pair[1].severity)
        return found

    def severities(self) -> dict[str, float]:
        """How bad the worst finding of each picture is, by its key; 0 ... 1."""
        found: dict[str, float] = {}
        for key, several in (
            *((key, own) for (key, _), own in self.by_box.items()),
            *self.by_picture.items(),
        ):
            found[key] = max(found.get(key, 0.0), several[0][1].severity)
        return found


@dataclass(frozen=True)
class Limit:
    """A figure and what it had to reach. value: None where it was not measured. missed: how it
    misses that, as text; "" if it does not."""

    figure: str
    value: float | None
    limit: str
    missed: str


@dataclass(frozen=True)
class Limits:
    """audit.json. problem: why it does not count, as a sentence; "" if it does."""

    limits: tuple[Limit, ...] = ()
    notes: str = ""
    problem: str = ""

    @property
    def missed(self) -> tuple[Limit, ...]:
        """Those that are missed."""
        return tuple(each for each in self.limits if each.missed)


def read_limits(output: Store, digest: str) -> Limits | None:
    """What audit.json says, or None where there is none. digest: of the run's archive."""
    try:
        data = output.read(REPORT)
    except MissingObjectError:
        return None
    try:
        report = AuditReport.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return Limits(problem=f"{REPORT} is no audit's report: {first['msg']}.")
    limits = []
    for each in report.thresholds:
        value = report.figures.get(each.figure)
        missed = "it was not measured" if value is None else each.missed(value)
        sign, number = ("≥", each.at_least) if each.at_most is None else ("≤", each.at_most)
        if value is not None and value.is_integer():  # a count
            value = int(value)
        limits.append(Limit(each.figure, value, f"{sign} {number:g}", missed))
    problem = ""
    if report.archive.digest != digest:
        problem = (
            f"{REPORT} is of another archive, {report.archive.name} {report.archive.version} with"
            f" digest {report.archive.digest[:12]}…, so it says nothing about this run."
        )
    elif not report.passed and not any(each.missed for each in limits):
        problem = f"{REPORT} says that it did not pass, though every figure reaches its threshold."
    return Limits(tuple(limits), report.notes, problem)

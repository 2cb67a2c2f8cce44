"""What `jobs triage` tells: as data, as a part of an audit, as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from archives.errors import printable
from jobs.audit.findings import Cell, Part, Table
from jobs.audit.triage.gathered import Triage
from jobs.audit.triage.noticed import FLAGS, MISSED, Noticed
from jobs.progress import counted

PART = "triage"
LIST = 10  # pictures in the printed text
COLUMNS = pa.schema(
    [
        pa.field(name, kind, nullable=name == "index")
        for name, kind in (
            *(("rank", pa.int32()), ("key", pa.string()), ("index", pa.int32())),
            *(("category", pa.string()), ("flag", pa.string()), ("severity", pa.float32())),
            *(("says", pa.string()), ("group", pa.string())),
        )
    ]
)
TEXT = (
    "Each finding's severity is how sure the detector was times how much of that is contradicted,"
    " so that kinds can be compared; a picture's rank is its worst. Contradicted is, of low energy"
    " and of evidence outside the box, the share of the map off the box; of scattered evidence how"
    " far the entropy is from the usual towards a map that is the same everywhere; of an unstable"
    " box what a move by a few pixels does not leave of it (IoU times the scores' ratio times the"
    " maps' correlation); of a box that no object answers to all of it; and a missed object weighs"
    " one less its candidate's score. Low energy and scattered evidence are three deviations"
    " (median absolute ones) from the category's median and below 0.3 or above 0.9; evidence"
    " outside the box is energy below 0.1 at a score of 0.9 or more, however usual; unstable is"
    " below 0.5, and unusual among boxes drawn at random. A map that lies in its box says nothing"
    " about whether the box is right, one that does not may show context that the category needs,"
    " and what the detector and its annotators both miss is not seen, nor are boxes below the"
    " run's threshold."
)


@dataclass(frozen=True)
class Told:
    """Everything that is told. run: where it lies. ranked: findings by the pictures' keys in the
    store, the picture with the worst one first."""

    run: str
    archive: Mapping[str, Any]
    found: Triage
    ranked: Mapping[str, Sequence[Noticed]]

    @property
    def flags(self) -> list[str]:
        """Those that there are."""
        there = {flag for flag, _ in self.found.findings.counts}
        return [flag for flag in FLAGS if flag in there]

    def number(self, flag: str) -> int:
        """How many of a kind there are, kept or not."""
        counts = self.found.findings.counts
        return sum(number for (own, _), number in counts.items() if own == flag)


def rows(told: Told) -> list[dict[str, Any]]:
    """As triage.parquet holds them: every finding that was kept, the pictures in their order."""
    return [
        {**asdict(each.finding), "rank": rank, "category": each.category}
        for rank, found in enumerate(told.ranked.values())
        for each in found
    ]


def summary(told: Told) -> dict[str, Any]:
    """As triage.json holds it."""
    found = told.found
    return {
        "run": told.run,
        "archive": dict(told.archive),
        "options": {
            name: getattr(found.options, name)
            for name in ("truth", "truth_format", "shifts", "most", "seed")
        },
        "pictures": found.pictures,
        "detections": found.detections,
        "counts": {
            flag: {
                category: number
                for (own, category), number in sorted(found.findings.counts.items())
                if own == flag
            }
            for flag in told.flags
        },
        "usual": {
            category: {
                "energy": each.median(),
                "low_energy": found.looks.low(category),
                "entropy": found.looks.entropy[category].median(),
                "high_entropy": found.looks.high(category),
            }
            for category, each in sorted(found.looks.energy.items())
        },
        "stability": {
            "median": found.stability.median(),
            "boxes": found.stability.number,
            "low": found.stability_limit,
        },
        "truth": {
            "annotated_pictures": found.annotated,
            "objects": found.objects,
            "missed": found.missed_objects,
            "why": dict(found.whys.most_common()),
            "categories_the_detector_does_not_know": dict(found.unknown.most_common()),
        },
        "looked_at_again": found.asked,
        "failures": [asdict(each) for each in found.failures],
        "ranked": [
            {
                "key": own[0].finding.key,
                "severity": own[0].finding.severity,
                "findings": [
                    {
                        name: getattr(each.finding, name)
                        for name in ("index", "flag", "severity", "says")
                    }
                    for each in own
                ],
            }
            for own in told.ranked.values()
        ],
    }


def part(told: Told) -> Part:
    """For the report of an audit."""
    found = told.found
    figures = {flag: float(told.number(flag)) for flag in told.flags}
    figures |= {"pictures": float(found.pictures), "detections": float(found.detections)}
    figures |= {"median stability": found.stability.median()}
    if found.objects:
        figures |= {"missed share": found.missed_objects / found.objects}
    return Part(
        PART,
        "Which pictures need a person",
        f"{_scope(told)} {TEXT}",
        tuple(_tables(told)),
        tuple(each.finding for own in told.ranked.values() for each in own),
        figures,
    )


def _scope(told: Told) -> str:
    found = told.found
    text = (
        f"{counted(found.detections, 'box', 'boxes')} on {counted(found.pictures, 'picture')} of"
        f" {told.run}; {counted(found.asked, 'picture')} shown to the detector again"
    )
    if found.failures:
        text += f", {counted(len(found.failures), 'picture')} could not be"
    if found.options.truth is not None:
        text += (
            f"; {counted(found.annotated, 'picture')} annotated,"
            f" {found.missed_objects:,} of {counted(found.objects, 'object')} missed"
        )
    if found.unknown:
        text += f"; categories that the detector does not know: {', '.join(sorted(found.unknown))}"
    return text + "."


def _tables(told: Told) -> Iterator[Table]:
    found = told.found
    counts, flags = found.findings.counts, told.flags
    names = sorted({category for _, category in counts})
    every: list[tuple[Cell, ...]] = [("all categories", *(told.number(flag) for flag in flags))]
    for name in names:
        every.append((name, *(counts[flag, name] for flag in flags)))
    yield Table(
        "Findings by kind and category",
        "All of them; unstable are those of the pictures that were looked at again. Listed are the"
        f" worst {found.options.most} of a kind; of missed objects those that were asked about.",
        ("category", *flags),
        tuple(every),
    )
    if found.missed_objects:
        yield Table(
            "Why objects were missed",
            "By what a detection says of the object, else by what became of its nearest candidate,"
            f" on at most {found.options.most} pictures drawn at random.",
            ("why", "objects"),
            tuple(found.whys.most_common()),
        )
    yield Table(
        "What is usual",
        "Each category's medians, and from where on a box is unusual: below for energy, above for"
        " entropy.",
        ("category", "energy", "low below", "entropy", "scattered above"),
        tuple(_usual(told)),
    )
    yield Table(
        "Pictures, the worst first",
        "With the worst finding of each.",
        ("picture", "severity", "flag", "what"),
        tuple(
            (each.finding.key, each.finding.severity, each.finding.flag, each.finding.says)
            for each in [own[0] for own in told.ranked.values()][: found.options.most]
        ),
    )


def _usual(told: Told) -> Iterator[tuple[Cell, ...]]:
    looks = told.found.looks
    for category, each in sorted(looks.energy.items()):
        entropy = looks.entropy[category]
        limits = looks.low(category), looks.high(category)
        yield category, each.median(), limits[0], entropy.median(), limits[1]


def text(told: Told) -> str:
    """For a terminal, which no key or category steers."""
    found = told.found
    lines = [_scope(told), ""]
    lines += [f"{told.number(flag):6,}  {flag}" for flag in told.flags] or ["Nothing was noticed."]
    if found.whys:
        whys = ", ".join(f"{kind} {number}" for kind, number in found.whys.most_common())
        lines.append(f"        {MISSED}s and why: {whys}")
    if not math.isnan(found.stability.median()):
        lines.append(
            f"        of boxes drawn at random a move by a few pixels leaves"
            f" {found.stability.median():.2f} (median of {found.stability.number})"
        )
    if told.ranked:
        lines += ["", "Pictures, the worst first:"]
    for own in list(told.ranked.values())[:LIST]:
        worst = own[0].finding
        more = f" (and {len(own) - 1} more)" if len(own) > 1 else ""
        lines.append(f"  {worst.severity:.2f}  {worst.key}: {worst.flag}: {worst.says}{more}")
    return "\n".join(map(printable, lines))

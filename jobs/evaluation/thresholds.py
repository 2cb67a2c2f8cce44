"""Thresholds that an evaluation's figures have to reach, and the audit.json that says whether they
do: what the registry's gate reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from archives.errors import UsageError
from archives.registry.audit_report import AuditedArchive, AuditReport, Threshold
from archives.stores.store import Store
from handlers.manifest import Manifest
from jobs.commands.argument_types import split_threshold
from jobs.evaluation.measure import CONTROLS, FIGURES, figure_names, paired

REPORT = "audit.json"
# How much was measured: figures, too.
COUNTS = ("boxes", "pictures", "failed pictures")
SIDES = {">=": "at_least", "<=": "at_most"}


def parsed(text: str) -> Threshold:
    """Of a text as `jobs.commands.argument_types.threshold` takes it."""
    figure, sign, number = split_threshold(text)
    return Threshold.model_validate({"figure": figure, SIDES[sign]: number})


def threshold_names(
    maps: Iterable[str], controls: bool, figures: Sequence[str] = FIGURES
) -> list[str]:
    """What an evaluation of these maps has figures of: COUNTS, each map's means, as "default
    energy", and where controls are measured its mean differences from them, as "default insertion
    less Gaussian in the box"."""
    names = [*COUNTS]
    for each in maps:
        names += [_figure(each, figure) for figure in figures]
        if controls and each not in CONTROLS:
            less = paired(figures)
            names += [_figure(each, figure, control) for control in CONTROLS for figure in less]
    return names


def _figure(name: str, figure: str, control: str = "") -> str:
    less = f"less {control.removeprefix('control: ')}" if control else ""
    return " ".join(f"{name} {figure} {less}".split())


def figures_of(summary: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The figures by their names but for COUNTS; what is no number is left out.

    summary: as `jobs.scoring.summary.summarised` gives it.
    """
    found: dict[str, float] = {}
    for name, own in summary.items():
        measured = [figure for figure in figure_names(True) if figure in own]
        found |= {_figure(name, figure): own[figure][0] for figure in measured}
        for control in CONTROLS:
            for figure, (mean, _) in own.get(f"less {control}", {}).items():
                found[_figure(name, figure, control)] = mean
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def check_thresholds(
    texts: Sequence[str],
    maps: Iterable[str],
    controls: bool,
    figures: Sequence[str] = FIGURES,
    detector: Sequence[str] = (),
) -> None:
    """Raises UsageError for a threshold of what will not be measured, before anything is. figures:
    what each map will have; detector: what the detector itself will."""
    names = [*threshold_names(maps, controls, figures), *detector]
    for text in texts:
        figure = parsed(text).figure
        if figure not in names:
            raise UsageError(
                f"threshold: there will be no figure {figure!r}; expected one of"
                f" {', '.join(map(repr, names))}"
            )


@dataclass(frozen=True)
class Measured:
    """What was measured, and on what.

    boxes, pictures, failed_pictures: how many. wanted: boxes, without which no threshold counts as
    met. notes: how, for people. detector: its own figures, by name.
    """

    summary: Mapping[str, Mapping[str, Any]]
    boxes: int
    pictures: int
    failed_pictures: int
    wanted: int
    notes: str
    detector: Mapping[str, float] = field(default_factory=dict)


def write_audit(
    output: Store, manifest: Manifest, measured: Measured, texts: Sequence[str]
) -> list[str]:
    """Writes REPORT; what was missed, one text for each. That as many boxes were measured as were
    wanted is a threshold, too, and a figure that is no number misses its own."""
    counts = (measured.boxes, measured.pictures, measured.failed_pictures)
    enough = parsed(f"{COUNTS[0]}>={measured.wanted}")
    unjudged = AuditReport(
        archive=AuditedArchive(
            name=manifest.name, version=manifest.version, digest=manifest.digest
        ),
        created=datetime.now(UTC),
        figures={
            **dict(zip(COUNTS, map(float, counts), strict=True)),
            **figures_of(measured.summary),
            **measured.detector,
        },
        thresholds=(enough, *map(parsed, texts)),
        passed=True,
        notes=measured.notes,
    )
    misses = unjudged.misses()
    report = unjudged.model_copy(update={"passed": not misses})
    output.write(REPORT, report.model_dump_json(indent=1, exclude_none=True).encode() + b"\n")
    return misses

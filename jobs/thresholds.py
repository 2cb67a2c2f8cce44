"""Thresholds that an evaluation's figures have to reach, and the audit.json that says whether they
do: what the registry's gate reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from archives.errors import UsageError
from archives.registry.audit_report import AuditedArchive, AuditReport, Threshold
from archives.stores.store import Store
from handlers.manifest import Manifest
from jobs.argument_types import split_threshold
from jobs.measure import CONTROLS, FIGURES

REPORT = "audit.json"
SIDES = {">=": "at_least", "<=": "at_most"}


def parsed(text: str) -> Threshold:
    """Of a text as `jobs.argument_types.threshold` takes it."""
    figure, sign, number = split_threshold(text)
    return Threshold.model_validate({"figure": figure, SIDES[sign]: number})


def figures_of(summary: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Of each map its mean figures, as "default energy", and its mean differences from a control,
    as "default insertion less Gaussian in the box".

    summary: as `jobs.evaluate.summarised` gives it. What is no number is left out.
    """
    found: dict[str, float] = {}
    for name, own in summary.items():
        found |= {f"{name} {figure}": own[figure][0] for figure in FIGURES}
        for control in CONTROLS:
            less = control.removeprefix("control: ")
            for figure, (mean, _) in own.get(f"less {control}", {}).items():
                found[f"{name} {figure} less {less}"] = mean
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def check_maps(texts: Sequence[str], maps: Iterable[str]) -> None:
    """Raises UsageError for a threshold of a map that is not measured, before anything is."""
    names = list(maps)
    for text in texts:
        figure = parsed(text).figure
        if not any(figure.startswith(f"{name} ") for name in names):
            raise UsageError(
                f"threshold: {figure!r} is of no map that is measured; expected a figure of"
                f" {', '.join(names)}, as in '{names[-1]} {FIGURES[0]}>=0.5'"
            )


def write_audit(
    output: Store,
    manifest: Manifest,
    summary: Mapping[str, Mapping[str, Any]],
    texts: Sequence[str],
) -> list[str]:
    """Writes REPORT; what was missed, one text for each.

    Raises UsageError for a threshold of a figure that the evaluation does not have.
    """
    figures = figures_of(summary)
    thresholds = tuple(map(parsed, texts))
    if unknown := [each.figure for each in thresholds if each.figure not in figures]:
        raise UsageError(
            f"threshold: the evaluation has no {unknown[0]!r}; it has {', '.join(figures)}"
        )
    unjudged = AuditReport(
        archive=AuditedArchive(
            name=manifest.name, version=manifest.version, digest=manifest.digest
        ),
        created=datetime.now(UTC),
        figures=figures,
        thresholds=thresholds,
        passed=True,
    )
    misses = unjudged.misses()
    report = unjudged.model_copy(update={"passed": not misses})
    output.write(REPORT, report.model_dump_json(indent=1, exclude_none=True).encode() + b"\n")
    return misses

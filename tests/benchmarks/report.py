"""Rows as JSON, a file for each work, and as one table of all that a folder holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Row, Settings

SCHEMA_VERSION = 1
DEVICES = ("cpu", "cuda")


def written(
    folder: Path,
    work: str,
    title: str,
    settings: Settings,
    machine: Mapping[str, Any],
    rows: Sequence[Row],
    skipped: str = "",
) -> Path:
    """Writes FOLDER/DEVICE-WORK.json."""
    folder.mkdir(parents=True, exist_ok=True)
    device = settings.device.partition(":")[0]
    path = folder / f"{device}-{work}.json"
    content = {
        "schema_version": SCHEMA_VERSION,
        "work": work,
        "title": title,
        "settings": asdict(settings),
        "machine": machine,
        "skipped": skipped,
        "rows": [_as_json(row) for row in rows],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def _as_json(row: Row) -> dict[str, Any]:
    goal = row.goal
    return {
        **asdict(row),
        "goal": None if goal is None else str(goal),
        "met": None if goal is None else goal.met(row.value),
    }


def tables(folder: Path, works: Sequence[str]) -> str:
    """Markdown of all that was written there, and which of the works were not run."""
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    parts = [
        f"Not run on {device}: {', '.join(absent)}.\n"
        for device in DEVICES
        if (absent := [each for each in works if not (folder / f"{device}-{each}.json").exists()])
    ]
    for report in reports:
        parts += [f"## {report['title']}", "", _about(report), ""]
        if report["skipped"]:
            parts += [f"Not run: {report['skipped']}.", ""]
        if report["rows"]:
            parts += [*_table(report["rows"]), ""]
    return "\n".join(parts)


def _about(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    where = machine.get("gpu") or machine["processor"]
    flags = ", ".join(machine["flags"]) or "no special flags"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    tiny = " **Tiny work: the figures mean nothing.**" if report["settings"]["tiny"] else ""
    return (
        f"{where} ({flags}), {machine['cores']} cores, {machine['threads']} threads,"
        f" {report['settings']['rounds']} rounds, load {machine['load_at_start']} at the start;"
        f" {versions}.{tiny}"
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| case | figure | median | least - largest | ours s | other s | target | met | same? |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        met = {None: "", True: "yes", False: "**no**"}[row["met"]]
        cells = [
            *(row["case"], row["measure"], _number(row["value"])),
            " - ".join(_number(each) for each in row["spread"]),
            *(_number(row["ours"]), _number(row["other"]), row["goal"] or "", met, row["same"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    notes = dict.fromkeys(row["note"] for row in rows if row["note"])
    return [*lines, "", *(f"- {note}" for note in notes)] if notes else lines


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return (
        f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if value < 1 else f"{value:.3f}"
    )

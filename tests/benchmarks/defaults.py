"""The tables of docs/methods.md that decide which map a detector gives by default.

python -m tests.benchmarks.defaults pictures --data scenes --number 100 --output pictures
python -m tests.benchmarks.defaults table "scenes, RetinaNet=evaluation" --output docs/methods

`pictures` writes those that training never draws. `table` reads what `python -m jobs evaluate`
wrote of each detector (several folders with commas between them, measured on the same pictures),
keeps its means and standard errors in defaults.json beside the other detectors', and prints the
tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from jobs.demo.data import SETS, held_out
from jobs.evaluation.measure import GAUSSIAN, RANDOM

RECORD = "defaults.json"
FAITHFUL = "method=layercam layer=C3 smooth=0.1 center_prior=0.35"
# What the columns are called, by the names of maps.
COLUMNS = {
    "odam emitting": "`odam`, emitting",
    "method=odam smooth=0.2": "`--smooth 0.2`",
    FAITHFUL: "`layercam`, C3, `--smooth 0.1 --center-prior 0.35`",
    f"{FAITHFUL} shared=true": "the same, `--shared`",
}
# What is left of the most faithful map without a part of it.
PARTS = {
    FAITHFUL: COLUMNS[FAITHFUL],
    "method=layercam layer=C3 smooth=0.1": "without the prior",
    "method=odam smooth=0.2 center_prior=0.35": "`odam`, `--smooth 0.2 --center-prior 0.35`",
}
MEASURES = {"": "D-RISE's similarity", "_score": "IoU times the class's own probability"}
FEWEST = 100  # boxes
# By detector and map [mean, standard error] by figure, and how many boxes.
Figures = Mapping[str, Mapping[str, Any]]


def write_pictures(data: str, number: int, first: int, folder: Path) -> None:
    """PNG files of held-out pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, sample in enumerate(held_out(data, number, first), first):
        Image.fromarray(sample.picture).save(folder / f"{place:03d}.png")


def read_evaluation(folder: Path) -> dict[str, dict[str, Any]]:
    """By map its figures and "boxes"; empty where fewer than FEWEST were measured."""
    record = json.loads((folder / "evaluation.json").read_text())
    rows = [row for found in record["pictures"].values() for row in found]
    boxes = len({(row["picture"], row["index"]) for row in rows})
    if boxes < FEWEST or "summary" not in record:
        return {}
    return {name: {**own, "boxes": boxes} for name, own in record["summary"].items()}


def faithfulness_table(figures: Figures, measure: str) -> str:
    """Markdown: a line for each detector, of each map deletion and insertion less the
    Gaussian's. measure: a key of MEASURES."""
    return _against_gaussian(figures, COLUMNS, measure)


def parts_table(figures: Figures) -> str:
    """Markdown: the same of what is left without a part, where that was measured."""
    some = {name: maps for name, maps in figures.items() if PARTS.keys() <= maps.keys()}
    return _against_gaussian(some, PARTS, "")


def _against_gaussian(figures: Figures, columns: Mapping[str, str], measure: str) -> str:
    lines = ["| detector | " + " | ".join(columns.values()) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for detector, maps in figures.items():
        boxes = max(own["boxes"] for own in maps.values())
        cells = [less(maps.get(name), GAUSSIAN, measure) for name in columns]
        lines.append(f"| {detector}, {boxes} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def controls_table(figures: Figures) -> str:
    """Markdown: a line for each detector, areas of both controls and of the most faithful map, and
    that less the random field's."""
    titles = [
        "detector",
        "Gaussian",
        "random field",
        "`layercam` as above",
        "less the random field",
    ]
    lines = ["| " + " | ".join(titles) + " |", "|---" * 5 + "|"]
    for detector, maps in figures.items():
        areas = [
            f"{maps[name]['deletion'][0]:.3f}; {maps[name]['insertion'][0]:.3f}"
            for name in (GAUSSIAN, RANDOM, FAITHFUL)
        ]
        cells = [*areas, less(maps[FAITHFUL], RANDOM, "")]
        lines.append(f"| {detector} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def less(own: Mapping[str, Any] | None, control: str, measure: str) -> str:
    """A map's deletion and insertion less a control's, in words where it was not measured."""
    if own is None:
        return "not measured"
    figures = own[f"less {control}"]
    deletion, insertion = figures["deletion" + measure], figures["insertion" + measure]
    return f"{_signed(deletion, better=-1)}; {_signed(insertion)}"


def _signed(measured: Sequence[float], better: int = 1) -> str:
    """A mean and its standard error: bold where it is better by more than two of these, slanted
    where it is worse."""
    mean, error = measured
    text = f"{mean:+.3f} ± {error:.3f}".replace("0.", ".")
    marks = {True: "**", False: "*"}.get(mean * better > 0, "") if abs(mean) > 2 * error else ""
    return marks + text + marks


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    pictures = commands.add_parser("pictures")
    pictures.add_argument("--data", choices=SETS, default="scenes")
    pictures.add_argument("--number", type=int, default=100)
    pictures.add_argument("--first", type=int, default=0, help="from 0")
    pictures.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    table = commands.add_parser("table")
    table.add_argument("evaluations", nargs="+", metavar="DETECTOR=FOLDER[,FOLDER...]")
    table.add_argument("--output", type=Path, default=Path("docs/methods"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    if options.command == "pictures":
        write_pictures(options.data, options.number, options.first, options.output)
        return
    path = options.output / RECORD
    figures: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    for each in options.evaluations:
        detector, _, folders = each.partition("=")
        maps = figures[detector] = {}
        for folder in folders.split(","):
            maps |= read_evaluation(Path(folder))
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    for measure, title in MEASURES.items():
        print(f"{title}:\n\n{faithfulness_table(figures, measure)}\n")
    print(parts_table(figures), controls_table(figures), sep="\n\n")


if __name__ == "__main__":
    main()

"""Trials of `jobs shortcuts`: detectors taught to cheat, and honest ones, are audited.

python -m tests.benchmarks.shortcuts --folder trials

Each detector is trained (two minutes of one core; a file of weights that is there already is
taken), its cheating measured, and its pictures audited by the command's own function, which is not
told what was planted. What is done is kept in the folder; docs/methods/shortcuts.json holds all.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from archives.stores.opening import open_store
from handlers.explainer import Explainer
from jobs.audit.find_shortcuts import EVIDENCE, find_shortcuts
from jobs.audit.findings import read_part
from jobs.audit.places import BESIDE, SPOT, SURROUNDINGS, Place
from jobs.audit.shortcut_report import NAME
from jobs.audit.shortcuts_options import ShortcutsOptions
from jobs.demo.evaluate import WEIGHTS, load_detector
from jobs.demo.scenes import CATEGORIES, HELD_OUT_SEEDS
from jobs.demo.shortcuts import (
    BADGE,
    CORNERS,
    SIDES,
    STAMP,
    PlantedScene,
    Shortcut,
    planted_scene,
    read_shortcuts,
)
from jobs.demo.train_head import main as train
from jobs.evaluation.tracking import reported
from jobs.scoring.matching import overlaps
from jobs.tables import read_rows
from tests.benchmarks.machine import machine

# Of held-out scenes: where cheating is measured, and where the audits' pictures begin.
LEARNED_FROM, AUDITED_FROM = 30_000, 40_000
SCENES_LEARNED = 12
PER_PICTURE = 4
# A pair is learned where so many of the objects with the cue are called by its category, and so
# many fewer without.
LEARNED, LESS_WITHOUT = 0.5, 0.3


@dataclass(frozen=True)
class Trial:
    """A detector. seed: of its training; None for the demo's own. planted: what it is taught.
    shown: what else is planted into the pictures of its audit, and means nothing to it."""

    name: str
    seed: int | None
    planted: tuple[Shortcut, ...] = ()
    shown: tuple[Shortcut, ...] = ()


def _trials() -> tuple[Trial, ...]:
    texts = (
        "badge:fish:0 texture:house:1 badge:mug:2 texture:mushroom:3",
        "badge:house:4 texture:mug:5 badge:mushroom:6 texture:sailboat:7",
        "badge:mug:8 texture:mushroom:9 badge:sailboat:10 texture:umbrella:11",
        "badge:mushroom:12 texture:sailboat:13 badge:umbrella:14 texture:fish:15",
        "badge:sailboat:16 texture:umbrella:17 badge:fish:18 texture:house:19",
        "badge:fish:20 badge:umbrella:21 texture:mug:2 badge:house:23",
        "badge:mug:24 badge:sailboat:25 texture:fish:5 badge:mushroom:27",
    )
    stamp = Trial("stamp", 1000, read_shortcuts("badge:fish:0 stamp:house:1 texture:mug:2"))
    cheats = (
        Trial(f"planted-{number}", 1000 + number, read_shortcuts(text))
        for number, text in enumerate(texts)
    )
    honest = (Trial(f"honest-{number}", 2000 + number) for number in (1, 2))
    # Cues that mean nothing should not alarm.
    cued = Trial("demo-shown-cues", None, shown=read_shortcuts(texts[0] + " stamp:fish:9"))
    return (Trial("demo", None), cued, stamp, *cheats, *honest)


def expected(shortcut: Shortcut) -> Place:
    """Where the audit should say that a shortcut lies."""
    if shortcut.kind == BADGE:
        return Place(BESIDE, SIDES[shortcut.look % 4])
    if shortcut.kind == STAMP:
        right, lower = CORNERS[shortcut.look % 4]
        return Place(SPOT, f"{'lower' if lower else 'upper'} {'right' if right else 'left'}")
    return Place(SURROUNDINGS)


def learned(explainer: Explainer, shortcut: Shortcut, scenes: int) -> dict[str, Any]:
    """How many objects that carry the cue, of other categories, are called by its category, and
    how many without the cue."""
    objects, hits = 0, [0, 0]
    for seed in HELD_OUT_SEEDS[LEARNED_FROM : LEARNED_FROM + scenes]:
        planted = planted_scene(seed, [shortcut], 1.0)
        asked = planted.carriers & (planted.honest.labels != shortcut.label)
        pictures = [_tensor(each.picture) for each in (planted.scene, planted.honest)]
        objects += int(asked.sum())
        for place, (boxes, classes) in enumerate(reported(explainer, pictures, 2)):
            for box in planted.scene.boxes[asked]:
                if not len(boxes):
                    continue
                there = overlaps(box[None], boxes.numpy())[0] > 0.5
                hits[place] += bool((classes[:, shortcut.label].numpy()[there] > 0.5).any())
    return {"objects": objects, "with the cue": hits[0], "without": hits[1]}


def _tensor(picture: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def _scenes(planted: Sequence[Shortcut], number: int) -> Iterator[PlantedScene]:
    for seed in HELD_OUT_SEEDS[AUDITED_FROM : AUDITED_FROM + number]:
        yield planted_scene(seed, planted)


def _explainer(trial: Trial, folder: Path) -> Explainer:
    path = folder / f"{trial.name}.safetensors"
    if trial.seed is None:
        path = WEIGHTS
    elif not path.exists():
        line = ["--seed", str(trial.seed), "--output", str(path), "--threads", "1"]
        train([*line, "--shortcuts", " ".join(map(str, trial.planted))])
    return load_detector(path)


def audited(
    cues: Sequence[Shortcut], explainer: Explainer, folder: Path, pictures: int
) -> dict[str, Any]:
    """What the audit says of a detector, on pictures with the cues, of which it is told nothing."""
    scenes, output = folder / "scenes", folder / "audit"
    scenes.mkdir(parents=True, exist_ok=True)
    for number, planted in enumerate(_scenes(cues, pictures)):
        Image.fromarray(planted.scene.picture).save(scenes / f"{number:04}.png")
    started = time.monotonic()
    options = ShortcutsOptions(
        "", (str(scenes),), str(output), per_picture=PER_PICTURE, pictures=pictures
    )
    find_shortcuts(options, explainer)
    seconds = time.monotonic() - started
    store = open_store(str(output))
    part, rows = read_part(store, NAME), read_rows(store.read(EVIDENCE))
    assert part is not None
    columns = part.tables[0].columns
    told = [dict(zip(columns, row, strict=True)) for row in part.tables[0].rows]
    return {
        "pictures": pictures,
        "cues in the pictures": [str(each) for each in cues],
        "detections": len(rows),
        "with evidence outside": sum(row["place"] is not None for row in rows),
        "seconds": round(seconds, 1),
        "told": told,
    }


def one_trial(trial: Trial, folder: Path, pictures: int) -> dict[str, Any]:
    """All figures of a detector."""
    explainer = _explainer(trial, folder)
    found: dict[str, Any] = {"name": trial.name, "pairs": []}
    cues = (*trial.planted, *trial.shown)
    found["audit"] = audited(cues, explainer, folder / trial.name, pictures)
    flagged = [row for row in found["audit"]["told"] if row["flagged"] == "yes"]
    for shortcut in trial.planted:
        share = learned(explainer, shortcut, SCENES_LEARNED)
        own = [row["evidence"] for row in flagged if row["category"] == shortcut.category]
        place = expected(shortcut)
        found["pairs"].append(
            {
                "planted": str(shortcut),
                **share,
                "learned": share["with the cue"] >= LEARNED * share["objects"]
                and share["with the cue"] - share["without"] >= LESS_WITHOUT * share["objects"],
                "expected": str(place),
                "flagged as": own,
                "found": bool(own),
                "found there": str(place) in own,
            }
        )
    taught = {each.category for each in trial.planted}
    found["false flags"] = [
        f"{row['category']}: {row['evidence']}" for row in flagged if row["category"] not in taught
    ]
    return found


def summary(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares over all trials, with their denominators."""
    every = [pair for trial in trials for pair in trial["pairs"]]
    pairs = [pair for pair in every if pair["learned"]]
    honest = [trial for trial in trials if not trial["pairs"]]
    cheats = [trial for trial in trials if trial["pairs"]]
    taught = [{pair["planted"].split(":")[1] for pair in trial["pairs"]} for trial in cheats]
    return {
        "pairs planted": len(every),
        "pairs learned": len(pairs),
        "learned pairs found": sum(pair["found"] for pair in pairs),
        "learned pairs found at their place": sum(pair["found there"] for pair in pairs),
        "honest detectors": len(honest),
        "their detections": sum(trial["audit"]["detections"] for trial in honest),
        "their detections with evidence outside": sum(
            trial["audit"]["with evidence outside"] for trial in honest
        ),
        "their categories": len(CATEGORIES) * len(honest),
        "their categories flagged": sum(len(trial["false flags"]) for trial in honest),
        "categories that cheats were not taught": sum(
            len(CATEGORIES) - len(names) for names in taught
        ),
        "of these flagged": sum(len(trial["false flags"]) for trial in cheats),
    }


def table(trials: Sequence[dict[str, Any]]) -> str:
    """The trials as a table of docs/shortcuts.md."""
    lines = [
        "| detector | taught | objects called so with the cue, without | flagged as |",
        "|---|---|---|---|",
    ]
    for trial in trials:
        for pair in trial["pairs"]:
            called = f"{pair['with the cue']}, {pair['without']} of {pair['objects']}"
            if not pair["learned"]:
                called += " (not learned)"
            flagged = [
                f"**{each}**" if each == pair["expected"] else each for each in pair["flagged as"]
            ]
            said = "; ".join(flagged) or "nothing"
            lines.append(f"| {trial['name']} | {pair['planted']} | {called} | {said} |")
        audit = trial["audit"]
        if not trial["pairs"]:
            outside = f"{audit['with evidence outside']} of {audit['detections']} detections"
            said = "; ".join(trial["false flags"]) or "nothing"
            lines.append(f"| {trial['name']} | nothing | {outside} outside the box | {said} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what is missing, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="weights, pictures and audits")
    parser.add_argument("--pictures", type=int, default=100, help="that each audit looks at")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="do these trials alone")
    parser.add_argument("--output", type=Path, default=Path("docs/methods/shortcuts.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    done = []
    for trial in _trials():
        record = options.folder / f"{trial.name}.json"
        if not record.exists() and (options.only is None or trial.name in options.only):
            found = one_trial(trial, options.folder, options.pictures)
            record.write_text(json.dumps(found, indent=1) + "\n")
        if record.exists():
            done.append(json.loads(record.read_text()))
    text = {"summary": summary(done), "trials": done, "machine": machine("cpu")}
    options.output.write_text(json.dumps(text, indent=1) + "\n")
    print(table(done))
    print(json.dumps(text["summary"], indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m jobs score`: average precision of boxes that were found before."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from archives.errors import UsageError, shortened
from archives.stores.opening import open_store
from archives.stores.store import Store
from jobs.errors import DONE
from jobs.names import RECORD
from jobs.notes import say
from jobs.numbers_in_json import plain
from jobs.progress import counted
from jobs.saved_run import SavedRun
from jobs.scoring.average_precision import (
    Curve,
    Curves,
    mean_over_categories,
    voc_11_point,
    voc_every_point,
)
from jobs.scoring.coco_average_precision import CocoScores, coco_average_precision
from jobs.scoring.options import ScoreOptions
from jobs.scoring.pictures import DetectedPicture
from jobs.scoring.run_boxes import RunBoxes
from jobs.scoring.saved_boxes import DETECTIONS_FILE, TRUTHS_FILE, SavedBoxes
from jobs.scoring.text_boxes import DETECTIONS, TRUTHS, holds_text_boxes, read_text_boxes
from jobs.truth.annotation_files import shown
from jobs.truth.reading import read_truth

SCORES = "scores.json"
MOST_NAMED = 10


@dataclass(frozen=True)
class CategoryScore:
    """One category's. objects: that count. detections: that count. every_point, eleven_point:
    average precision. recall, precision: of the boxes from the score threshold on. What is 0 ... 1
    is not a number where there is nothing to take a share of."""

    objects: int
    detections: int
    every_point: float
    eleven_point: float
    recall: float
    precision: float

    @classmethod
    def of(cls, curve: Curve, score_threshold: float) -> CategoryScore:
        """From a category's curve."""
        correct, wrong = curve.positives(score_threshold)
        return cls(
            curve.objects,
            len(curve.scores),
            voc_every_point(curve),
            voc_11_point(curve),
            correct / curve.objects if curve.objects else math.nan,
            correct / (correct + wrong) if correct + wrong else math.nan,
        )


@dataclass(frozen=True)
class Scored:
    """One set of boxes' scores.

    map, threshold: what made the boxes, as in saved boxes. by_iou: for each least overlap the
    categories' scores by name. coco: None if not asked for. found, true: how many detections and
    objects each category has.
    """

    map: str
    threshold: float | None
    by_iou: dict[float, dict[str, CategoryScore]]
    coco: CocoScores | None
    found: Counter[str]
    true: Counter[str]


def score(options: ScoreOptions) -> int:
    """Scores the boxes of a run or of a folder, writes SCORES, prints tables or that; returns 0.

    Raises UsageError where there are no boxes, no ground truth, or no picture with it.
    """
    store = open_store(options.place)
    notes: list[str] = []
    if store.find(RECORD) is not None:
        scored = [_of_run(options, notes)]
    else:
        if options.truth is not None:
            raise UsageError(
                f"{shortened(store.uri)} holds no run, but saved boxes have their ground truth"
                " beside them: give no --truth"
            )
        scored = [
            scored_pictures(boxes.pictures(), options, name, threshold)
            for (name, threshold), boxes in _saved(store, options.place).by_map().items()
        ]
    notes += _differing_names(scored)
    text = json.dumps(plain(_summary(options, scored, notes)), indent=1, allow_nan=False)
    output = open_store(options.output) if options.output else store
    output.write(SCORES, text.encode() + b"\n")
    if options.json:
        print(text)
    else:
        print("\n\n".join("\n".join(each) for each in _tables(options, scored)))
        print(f"\n{output.uri}/{SCORES}")
    for note in notes:
        say(note)
    return DONE


def scored_pictures(
    pictures: Iterable[DetectedPicture],
    options: ScoreOptions,
    name: str = "",
    threshold: float | None = None,
) -> Scored:
    """The scores of pictures' detections. name, threshold: what made them."""
    curves = {least: Curves(least, options.pixel) for least in options.iou}
    found: Counter[str] = Counter()
    true: Counter[str] = Counter()

    def seen() -> Iterator[DetectedPicture]:
        for each in pictures:
            for gathered in curves.values():
                gathered.add(each.boxes, each.categories, each.scores, each.objects)
            found.update(each.categories)
            true.update(each.objects.categories)
            yield each

    coco = coco_average_precision(seen()) if options.coco else None
    if coco is None:
        for _ in seen():
            pass
    by_iou = {
        least: {
            category: CategoryScore.of(curve, options.score_threshold)
            for category, curve in gathered.by_category().items()
        }
        for least, gathered in curves.items()
    }
    return Scored(name, threshold, by_iou, coco, found, true)


def _of_run(options: ScoreOptions, notes: list[str]) -> Scored:
    if options.truth is None:
        raise UsageError("a run needs --truth: where its pictures' true objects are")
    if options.pixel:
        raise UsageError("--pixel 1 is for saved boxes: a run's edges lie between pixels")
    run = SavedRun.open(options.place)
    truth = read_truth(
        options.truth, options.truth_format, options.categories, run.source(), masks=False
    )
    boxes = RunBoxes(run, truth)
    scored = scored_pictures(boxes.pictures(), options)
    if not boxes.annotated:
        raise UsageError(
            f"none of the run's {counted(boxes.without_truth, 'picture')} has ground truth at"
            f" {shortened(options.truth)}; expected files by their names there"
        )
    notes += boxes.notes()
    return scored


def _saved(store: Store, place: str) -> SavedBoxes:
    if store.find(TRUTHS_FILE) is not None:
        return SavedBoxes.read(store)
    if holds_text_boxes(store):
        return read_text_boxes(place)
    raise UsageError(
        f"there is nothing to score at {shortened(store.uri)}: expected a finished run ({RECORD}),"
        f" saved boxes ({DETECTIONS_FILE}, {TRUTHS_FILE}), or {DETECTIONS} and {TRUTHS} with text"
        " files"
    )


def _differing_names(scored: Sequence[Scored]) -> list[str]:
    """Categories that are on one side alone, in words. Raises UsageError where none is on both."""
    found: Counter[str] = Counter()
    true: Counter[str] = Counter()
    for each in scored:
        found |= each.found
        true |= each.true
    alone, missed = found.keys() - true.keys(), true.keys() - found.keys()
    if found and true and not found.keys() & true.keys():
        raise UsageError(
            "no category of the detections is one of the ground truth: detections have"
            f" {_named(found, alone)}; the ground truth has {_named(true, missed)}; the names have"
            " to be the same"
        )
    notes = []
    if alone:
        notes.append(
            f"WARNING: categories of detections alone: {_named(found, alone)}. The ground truth has"
            " no object of these, so they have no average precision: are they called otherwise"
            " there?"
        )
    if missed:
        notes.append(
            f"WARNING: categories of the ground truth alone: {_named(true, missed)}. Nothing of"
            " these was detected, so they score 0: does the detector call them otherwise?"
        )
    return notes


def _named(counts: Counter[str], names: Iterable[str]) -> str:
    chosen = sorted(names, key=lambda each: (-counts[each], each))
    first = ", ".join(f"{shown(each)} ({counts[each]:,})" for each in chosen[:MOST_NAMED])
    more = len(chosen) - MOST_NAMED
    return first + f" and {more:,} more" * (more > 0)


def _summary(options: ScoreOptions, scored: Sequence[Scored], notes: list[str]) -> dict[str, Any]:
    return {
        "options": asdict(options),
        "notes": notes,
        "scores": [
            {
                "map": each.map,
                "threshold": each.threshold,
                "iou": least,
                "mean": {
                    name: mean_over_categories(getattr(own, name) for own in categories.values())
                    for name in ("every_point", "eleven_point")
                },
                "categories": {name: asdict(own) for name, own in categories.items()},
            }
            for each in scored
            for least, categories in each.by_iou.items()
        ],
        "coco": [
            {"map": each.map, "threshold": each.threshold, **asdict(each.coco)}
            for each in scored
            if each.coco is not None
        ],
    }


def _tables(options: ScoreOptions, scored: Sequence[Scored]) -> Iterator[list[str]]:
    """For each set of boxes and least overlap a table, and COCO's figures."""
    for each in scored:
        made = "" if not each.map else f"{shown(each.map)}, "
        made += "" if each.threshold is None else f"threshold {each.threshold:g}, "
        for least, categories in each.by_iou.items():
            yield _table(f"{made}IoU {least:g}", categories, options.score_threshold)
        if each.coco is not None:
            own = each.coco
            yield [
                f"{made}COCO (IoU .50:.05:.95)",
                *(f"  {name:<11}{_share(value)}" for name, value in own.figures.items()),
                *(
                    f"  {_share(value)}  AP of {shown(name)}"
                    for name, value in sorted(own.by_category.items())
                ),
            ]


def _table(title: str, categories: dict[str, CategoryScore], score_threshold: float) -> list[str]:
    heads = ("objects", "boxes", "AP", "AP 11-point", "recall", "precision")
    width = max(len("mean of 00"), *(len(shown(name)) for name in categories), 0)
    rows = [
        (
            shown(name),
            f"{each.objects:,}",
            f"{each.detections:,}",
            *map(_share, (each.every_point, each.eleven_point, each.recall, each.precision)),
        )
        for name, each in categories.items()
    ]
    numbers = [each for each in categories.values() if each.objects]
    means = [
        mean_over_categories(getattr(each, name) for each in numbers)
        for name in ("every_point", "eleven_point")
    ]
    rows.append((f"mean of {len(numbers)}", "", "", *map(_share, means), "", ""))
    return [
        f"{title}; recall and precision of boxes scoring at least {score_threshold:g}",
        "  ".join(["category".ljust(width), *(head.rjust(9) for head in heads)]),
        *(
            "  ".join(
                [
                    name.ljust(width),
                    *(
                        cell.rjust(max(9, len(head)))
                        for head, cell in zip(heads, cells, strict=True)
                    ),
                ]
            ).rstrip()
            for name, *cells in rows
        ),
    ]


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"

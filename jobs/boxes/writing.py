"""What is written of boxes that were held against the truth: tables for people and for programs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from archives.stores.store import Store
from jobs.boxes.figures import (
    ALL,
    SCORE,
    TABLE,
    TUNE,
    Accuracy,
    Chosen,
    Figure,
    means,
)
from jobs.boxes.options import BoxStep
from jobs.boxes.saved_maps import write_json
from jobs.boxes.scored import MAP, Held
from jobs.names import printable
from jobs.numbers_in_json import plain
from jobs.progress import counted
from jobs.scoring import saved_boxes
from jobs.scoring.saved_boxes import truth_rows
from jobs.tables import parquet_bytes

PAGE, RECORD = "boxes.md", "boxes.json"
DETECTIONS, TRUTHS, FIGURES = (
    f"boxes/{name}.parquet" for name in ("detections", "truths", "figures")
)
SETS = {ALL: "all pictures", TUNE: "the tuning split", SCORE: "the scored split"}


@dataclass(frozen=True)
class Results:
    """All figures.

    sets: how many pictures each has. main: the set that the long table is of. what: of what the
    maps are, in a sentence. cut: the least score of the detections, where there is one.
    """

    held: Held
    step: BoxStep
    figures: Sequence[Figure]
    chosen: Sequence[Chosen]
    accuracies: Sequence[Accuracy]
    sets: Mapping[str, int]
    main: str
    what: str
    cut: float | None


def write_results(output: Store, results: Results, settings: Mapping[str, Any]) -> str:
    """Writes boxes/*.parquet, RECORD and PAGE, in this order, and returns the page."""
    output.write(DETECTIONS, _detections(results.held))
    truths = [
        row
        for key, objects in zip(results.held.keys, results.held.objects, strict=True)
        for row in truth_rows(printable(key), objects)
        # The others were not looked for.
        if row["category"] in results.held.categories
    ]
    output.write(TRUTHS, parquet_bytes(truths, saved_boxes.TRUTHS))
    output.write(FIGURES, parquet_bytes([plain(asdict(each)) for each in results.figures], TABLE))
    summary = {
        "maps_of": settings,
        "step": asdict(results.step),
        "sets": dict(results.sets),
        "maps": results.held.maps,
        "means": [asdict(each) for each in results.figures if each.category is None],
        "chosen": [asdict(each) for each in results.chosen],
        "box_accuracy": [asdict(each) for each in results.accuracies],
    }
    write_json(output, RECORD, plain(summary))
    page = as_page(results)
    output.write(PAGE, page.encode())
    return page


def _detections(held: Held) -> bytes:
    """Every box as a row, in the form of jobs.scoring.saved_boxes, so that `python -m jobs score`
    reads them. map: its kind; threshold: null for a detector's own box. Of one map's boxes that
    with the higher peak comes first."""
    names = np.array([printable(key) for key in held.keys], dtype=object)
    categories = np.array(held.categories, dtype=object)
    tables = []
    for kind, each in held.kinds.items():
        thresholds = np.array(each.thresholds, dtype=object)[each.threshold]
        columns = (
            *(names[each.picture], categories[each.category], *each.boxes.T, each.score),
            *(np.full(len(each.score), kind, dtype=object), thresholds),
        )
        arrays = [
            pa.array(column, own.type)
            for column, own in zip(columns, saved_boxes.DETECTIONS, strict=True)
        ]
        tables.append(pa.Table.from_arrays(arrays, schema=saved_boxes.DETECTIONS))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(tables), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def as_page(results: Results) -> str:
    """Everything as Markdown, in per cent."""
    held, step = results.held, results.step
    lines = [
        "# CAM to box",
        "",
        f"{results.what} {counted(held.maps, 'map')} of {counted(len(held.keys), 'picture')},"
        f" {counted(int(held.positives.sum()), 'object')} of"
        f" {counted(len(held.categories), 'category', 'categories')}. {_how(step)}",
        "",
        "A pixel counts from a threshold on, which is a share of its map's maximum. A box's score"
        " is that of what the map explains; of boxes of one map the one with the higher peak goes"
        " first. AP and recall are means over the categories, in per cent: AP at 11 recalls as in"
        " VOC 2007, and at every recall as in VOC 2010.",
    ]
    others = Counter(
        name for each in held.objects for name in each.categories if name not in held.categories
    )
    if others:
        named = ", ".join(f"{_escaped(name)} ({number})" for name, number in sorted(others.items()))
        lines += ["", f"Other categories of the truth were not looked for: {named}."]
    if results.cut:
        lines += [
            "",
            f"Only boxes that score at least {results.cut:g} were explained: AP and recall of all"
            " that the detector finds would be higher.",
        ]
    lines += ["", f"## By threshold, on {_set(results, results.main)}", "", *_by_threshold(results)]
    if results.chosen:
        lines += [
            "",
            f"## Thresholds chosen on {_set(results, TUNE)}, scored on {_set(results, SCORE)}",
            "",
            "Chosen for the 11-point AP, the lowest of equals. The last two columns are what a look"
            " at the scored pictures themselves would have chosen.",
            "",
            *_chosen(results.chosen),
        ]
    lines += [
        "",
        "## MaxBoxAcc and MaxBoxAccV2",
        "",
        "The share, in per cent, of categories in pictures with a box that overlaps any of their"
        " objects enough (Choe et al. 2020): MaxBoxAcc the box of the largest component at IoU 0.5,"
        " MaxBoxAccV2 the best box of all components, the mean over IoU 0.3, 0.5 and 0.7. Each"
        " takes the threshold that is best on the same pictures; BoxAcc takes MaxBoxAcc's of the"
        " tuning split.",
        "",
        *_accuracies(results),
    ]
    return "\n".join(lines) + "\n"


def _how(step: BoxStep) -> str:
    parts = ["the largest component" if step.components == "largest" else "all components"]
    parts.append(f"{step.connectivity} neighbours")
    if step.smooth:
        parts.append(f"blurred by {step.smooth:g} of the longer side")
    if step.occlusion_radius is not None:
        parts.append(f"hidden beyond {step.occlusion_radius:g} of the diagonal from the peak")
    return f"Boxes: {', '.join(parts)}."


def _set(results: Results, name: str) -> str:
    return f"{SETS[name]} ({results.sets[name]})"


def _by_threshold(results: Results) -> Iterator[str]:
    ious = results.step.iou
    columns = [means(results.figures, MAP, results.main, iou) for iou in ious]
    header = ["threshold"]
    for name in ("AP, 11 points", "AP", "recall"):
        header += [f"{name}, IoU {iou:g}" for iou in ious]
    rows = [
        [
            _number(at[0].threshold),
            *(_percent(getattr(each, name)) for name in ("ap_11", "ap", "recall") for each in at),
        ]
        for at in zip(*columns, strict=True)
    ]
    yield from _table(header, rows)


def _chosen(chosen: Sequence[Chosen]) -> Iterator[str]:
    yield from _table(
        [
            *("map", "IoU", "threshold", "AP, 11 points, where chosen", "AP, 11 points", "AP"),
            *("recall", "best threshold", "its AP, 11 points"),
        ],
        [
            [
                *(
                    _kind(each.map),
                    f"{each.iou:g}",
                    _number(each.threshold),
                    _percent(each.tune_ap_11),
                ),
                *(_percent(each.ap_11), _percent(each.ap), _percent(each.recall)),
                *(_number(each.best_threshold), _percent(each.best_ap_11)),
            ]
            for each in chosen
        ],
    )


def _accuracies(results: Results) -> Iterator[str]:
    yield from _table(
        [
            *("map", "pictures", "MaxBoxAcc", "its threshold", "BoxAcc, threshold of the other"),
            *("MaxBoxAccV2", "at IoU 0.3, 0.5, 0.7", "their thresholds"),
        ],
        [
            [
                *(_kind(each.map), SETS[each.set]),
                *(_percent(each.max_box_acc), _number(each.threshold)),
                "" if each.box_acc is None or each.set != SCORE else _percent(each.box_acc),
                _percent(each.max_box_acc_v2),
                ", ".join(_percent(accuracy) for _, accuracy, _ in each.each),
                ", ".join(_number(threshold) for _, _, threshold in each.each),
            ]
            for each in results.accuracies
        ],
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(cells)} |"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _escaped(text: str) -> str:
    """Names from annotations as text of a page, which may be shown as HTML: no markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|&])", r"\\\1", " ".join(text.split()))


def _kind(name: str) -> str:
    return name or "the detector's own boxes"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"

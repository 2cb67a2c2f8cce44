"""COCO's results format, of all boxes of a run: what its evaluation tools read."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from archives.stores.store import Store
from jobs.inputs.plan import Plan
from jobs.names import COCO_IMAGES, COCO_RESULTS, printable
from jobs.tables import read_rows
from jobs.worker.commit import read_stats, read_table

DIGITS = 3  # of a pixel
SCORE_DIGITS = 6  # what float32 has
LONGEST_NUMBER = 18  # digits that 64 bits hold


def write_coco(output: Store, plan: Plan) -> None:
    """Writes coco/results.json, a list of {"image_id", "category_id", "bbox": [x, y, width,
    height] in pixels, "score"}, and coco/images.json, which says whose picture an image_id is.

    image_id: the file's name without its ending where all names are whole numbers, each another
    (as COCO's are), else the picture's place in the run's listing, from 1. category_id: the
    detector's label.
    """
    by_name = _named_by_numbers(plan)
    with tempfile.TemporaryDirectory(prefix="whybox-") as folder:
        results, images = Path(folder, "results.json"), Path(folder, "images.json")
        _write_list(results, _results(output, plan, by_name))
        _write_list(images, _images(plan, by_name))
        output.write_file(COCO_RESULTS, results)
        output.write_file(COCO_IMAGES, images)


def _named_by_numbers(plan: Plan) -> bool:
    """Whether the names are whole numbers, each another: 8 bytes a picture are held."""
    numbers = array("Q")
    for shard in range(plan.shards):
        for entry in plan.entries(shard):
            stem = Path(entry.key).stem
            if not (stem.isascii() and stem.isdigit()) or len(stem) > LONGEST_NUMBER:
                return False
            numbers.append(int(stem))
    return np.unique(np.frombuffer(numbers, np.uint64)).size == len(numbers)


def _results(output: Store, plan: Plan, by_name: bool) -> Iterator[dict[str, Any]]:
    for number in range(plan.shards):
        stats = read_stats(output, number)
        if stats is None or not stats["detections"]:
            continue
        ids = dict(_ids(plan, number, by_name))
        seen = set()
        for row in read_rows(read_table(output, stats, "detections.parquet")):
            again = (row["key"], row["index"]) in seen  # the same box on another layer
            if again or row["outcome"] != "reported":
                continue
            seen.add((row["key"], row["index"]))
            x1, y1, x2, y2 = (row[name] for name in ("x1", "y1", "x2", "y2"))
            yield {
                "image_id": ids[row["key"]],
                "category_id": row["label"],
                "bbox": [round(each, DIGITS) for each in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(row["score"], SCORE_DIGITS),
            }


def _images(plan: Plan, by_name: bool) -> Iterator[dict[str, Any]]:
    for number in range(plan.shards):
        for name, image_id in _ids(plan, number, by_name):
            yield {"id": image_id, "file_name": name}


def _ids(plan: Plan, shard: int, by_name: bool) -> Iterator[tuple[str, int]]:
    first = shard * plan.shard_size + 1
    for place, entry in enumerate(plan.entries(shard), first):
        yield printable(entry.key), int(Path(entry.key).stem) if by_name else place


def _write_list(path: Path, items: Iterator[dict[str, Any]]) -> None:
    """A JSON list, an item a line, none of which is kept."""
    with path.open("w") as file:
        file.write("[")
        for number, item in enumerate(items):
            file.write(("," if number else "") + "\n" + json.dumps(item))
        file.write("\n]\n")

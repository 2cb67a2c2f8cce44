"""A finished run's detections beside ground truth."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from archives.errors import UsageError
from archives.stores.store import CONNECTIONS
from jobs.progress import counted
from jobs.saved_run import Row, SavedPicture, SavedRun
from jobs.scoring.pictures import DetectedPicture
from jobs.truth.objects import Objects, Truth

AHEAD = 4 * CONNECTIONS  # pictures whose annotations are asked for, or held, at once
REPORTED = "reported"
LOW = 0.01  # a score below which boxes change no average precision worth telling


@dataclass
class RunBoxes:
    """The pictures of a run that somebody annotated.

    annotated, without_truth, failed: how many there are, once `pictures` has come to its end.
    """

    run: SavedRun
    truth: Truth
    annotated: int = 0
    without_truth: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        asked = self.run.record["options"]
        for name in ("sum_boxes", "box", "candidates"):
            if asked.get(name):
                raise UsageError(
                    f"the run was made with --{name.replace('_', '-')}, so it does not hold each"
                    " picture's own boxes; score one that was made without"
                )

    def pictures(self) -> Iterator[DetectedPicture]:
        """In the listing's order; annotations are read side by side, few of them ahead."""
        with ThreadPoolExecutor(CONNECTIONS, "truth") as pool:
            waiting: deque[tuple[SavedPicture, Future[Objects | None]]] = deque()
            left = self.run.pictures()
            try:
                while True:
                    for each in islice(left, AHEAD - len(waiting)):
                        waiting.append((each, pool.submit(self.truth.objects, each.name)))
                    if not waiting:
                        break
                    picture, found = waiting.popleft()
                    objects = found.result()
                    if objects is None:
                        self.without_truth += 1
                        continue
                    self.annotated += 1
                    yield _detected(picture, self._of_category(objects))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        self.failed = self.run.record["counts"]["failures"]

    def _of_category(self, objects: Objects) -> Objects:
        """Those that the run was about."""
        category = self.run.record["options"].get("category")
        if not category:
            return objects
        keep = np.array([each == category for each in objects.categories], dtype=np.bool_)
        return objects.only(keep)

    def notes(self) -> list[str]:
        """What of the run bounds its scores, and what was left out."""
        asked = self.run.record["options"]
        least = asked["score_threshold"]
        found = [
            f"The run holds boxes that score at least {least:g}, the surest"
            f" {asked['max_detections']} of a picture: what it left out is not found here."
        ]
        if least > LOW:
            found[0] += (
                " So average precision is a lower bound: `jobs explain --score-threshold"
                f" {LOW:g}` into another --output keeps nearly all boxes."
            )
        if asked.get("category"):
            found.append(
                f"The run explained {asked['category']} alone: no other category is scored."
            )
        if self.without_truth:
            found.append(
                f"{counted(self.without_truth, 'picture')} without ground truth:"
                " left out, false detections and all."
            )
        if self.failed:
            found.append(f"{counted(self.failed, 'picture')} failed in the run: left out.")
        return found


def _detected(picture: SavedPicture, objects: Objects) -> DetectedPicture:
    rows = boxes_once(picture.rows)
    boxes = [[row[name] for name in ("x1", "y1", "x2", "y2")] for row in rows]
    return DetectedPicture(
        picture.name,
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        tuple(row["category"] for row in rows),
        np.array([row["score"] for row in rows], dtype=np.float64),
        objects,
    )


def boxes_once(rows: tuple[Row, ...]) -> list[Row]:
    """A picture's rows, each reported box once: one explained on several layers has several."""
    found: dict[Any, Row] = {}
    for row in rows:
        if row["outcome"] == REPORTED:
            found.setdefault(row["index"], row)
    return list(found.values())

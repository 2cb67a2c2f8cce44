"""The pictures of an evaluation looked at, one after the other, into its record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from archives.stores.store import Entry
from jobs.evaluation.measure import Maker, measure
from jobs.evaluation.record import EvaluationRecord
from jobs.evaluation.subjects import MeasureOptions, chosen_boxes
from jobs.inputs.listing import Listing
from jobs.names import printable
from jobs.notes import say
from jobs.progress import SECONDS_BETWEEN_LINES, counted
from jobs.scoring.reported import Reported
from jobs.truth.objects import Objects, Truth
from jobs.worker.pictures import Failure, Picture, Pools, load_ahead
from jobs.worker.shard import BATCHES_AT_ONCE, check_whose, windows

if TYPE_CHECKING:
    from handlers.explainer import Explainer


@dataclass(frozen=True)
class Work:
    """What is done to each picture. truth: None where boxes are held against themselves.

    unknown: names of pictures that nobody annotated, as they are met.
    """

    explainer: Explainer
    makers: Mapping[str, Maker]
    how: MeasureOptions
    truth: Truth | None
    unknown: dict[str, None] = field(default_factory=dict)

    def objects(self, key: str) -> Objects | None:
        """A picture's true objects, where they are asked for and known."""
        return None if self.truth is None else self.truth.objects(printable(key))

    def is_known(self, key: str) -> bool:
        """The picture can be held against what it is to be held against."""
        if self.truth is not None and self.objects(key) is None:
            self.unknown[printable(key)] = None
            return False
        return True


def measure_boxes(listing: Listing, record: EvaluationRecord, work: Work, boxes: int) -> None:
    """Measures the maps of at least so many boxes in all, in the listing's order, as far as there
    are pictures. Those whose truth nobody knows are not looked at."""
    if record.boxes >= boxes:
        return
    found = record.found
    said = _Saying()
    left = _left(listing, record, work, found.pictures)
    for each in _loaded(listing, left, 1):
        if isinstance(each, Failure):
            record.failed(each)
            continue
        objects = work.objects(each.key)
        try:
            subjects = chosen_boxes(work.explainer, each.pixels, work.how, objects)
            rows = measure(work.explainer, each.pixels, subjects, work.makers, work.how)
        except Exception as error:  # what a network raises for a picture is that picture's
            check_whose(error)
            record.failed(Failure.of(each.key, "explain", error))
            continue
        rows = [{"picture": each.key, **row} for row in rows]
        record.measured(each.key, rows, None if work.truth is None else subjects.reported)
        said.now_and_then(lambda: f"{record.boxes} of {counted(boxes, 'box', 'boxes')} measured")
        if record.boxes >= boxes:
            break


def detect_rest(listing: Listing, record: EvaluationRecord, work: Work) -> None:
    """Detects in the pictures that no map was measured on: average precision is of all of them."""
    found, batch_size = record.found, work.how.batch_size
    said = _Saying()
    left = _left(listing, record, work, found.detections)
    loaded = enumerate(_loaded(listing, left, batch_size))
    for window in windows(loaded, BATCHES_AT_ONCE * batch_size):
        for key, each in _detected([each for _, each in window], work):
            if isinstance(each, Failure):
                record.failed(each)
            else:
                record.detected(key, each)
        said.now_and_then(
            lambda: f"detected in {len(found.detections):,} of {counted(listing.count, 'picture')}"
        )


def _left(
    listing: Listing, record: EvaluationRecord, work: Work, done: Mapping[str, object]
) -> Iterator[Entry]:
    """The pictures that are neither done nor failed, and are known."""
    for entry in listing.entries():
        failed = printable(entry.key) in record.found.failures
        if entry.key not in done and not failed and work.is_known(entry.key):
            yield entry


def _loaded(
    listing: Listing, left: Iterator[Entry], batch_size: int
) -> Iterator[Picture | Failure]:
    pools = Pools.start()
    try:
        yield from load_ahead(listing.store, left, pools.transfer, batch_size)
    finally:
        pools.shutdown()


def _detected(
    window: Sequence[Picture | Failure], work: Work
) -> Iterator[tuple[str, Reported | Failure]]:
    """Of each picture by its key; if one breaks its batch, all are done singly."""
    explainer = work.explainer
    pictures = [each for each in window if isinstance(each, Picture)]
    yield from ((each.key, each) for each in window if isinstance(each, Failure))
    try:
        several = explainer.detect([each.pixels for each in pictures], work.how.batch_size)
    except Exception as error:  # as above
        check_whose(error)
        if len(pictures) == 1:
            key = pictures[0].key
            yield key, Failure.of(key, "explain", error)
            return
        for each in pictures:
            yield from _detected([each], work)
        return
    for picture, found in zip(pictures, several, strict=True):
        yield picture.key, Reported.of(found, explainer.categories)


class _Saying:
    """Says how far it is, every few seconds."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def now_and_then(self, text: Callable[[], str]) -> None:
        if time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            say(text())

"""`python -m jobs shortcuts`: asks an archive's detector about the pictures' detections."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from archives.errors import MissingObjectError, UsageError, shortened
from archives.errors import printable as printable_text
from archives.stores.opening import open_store
from archives.stores.store import Entry
from handlers.detectors.classifier import ClassifierDetector
from handlers.images import decode_picture
from handlers.render import encode_jpeg
from handlers.schema import ExplainRequest
from jobs.audit import shortcut_report
from jobs.audit.evidence import Donors, evidence_of
from jobs.audit.findings import Image, remove_sheets, write_part
from jobs.audit.places import Evidence
from jobs.audit.shortcut_sheets import SheetOptions, sheet_name, sheets
from jobs.audit.shortcuts import Pair, pairs
from jobs.audit.shortcuts_options import ShortcutsOptions
from jobs.errors import DONE, DONE_WITH_FAILURES, NothingToMeasureError
from jobs.evaluation.subjects import MeasureOptions, chosen_boxes
from jobs.inputs.listing import Listing, list_input
from jobs.names import SHORTCUTS, printable
from jobs.notes import say
from jobs.progress import SECONDS_BETWEEN_LINES, counted
from jobs.tables import parquet_bytes
from jobs.worker.pictures import Failure, Picture, Pools, load_ahead
from jobs.worker.shard import check_whose

if TYPE_CHECKING:
    from torch import Tensor

    from handlers.explainer import Explainer
    from handlers.schema import Explanation

EVIDENCE = f"{SHORTCUTS}evidence.parquet"
# Pictures that lend objects and backgrounds to the others.
LENDING = 24


def find_shortcuts(options: ShortcutsOptions, explainer: Explainer) -> int:
    """Writes OUTPUT/shortcuts/evidence.parquet (a row for each detection that was asked), a sheet
    of examples for each category and place that is flagged, and the audit's part "shortcuts";
    prints the flags. Returns 0, or 3 if pictures failed.

    Raises RequestError for a method or layer that the detector does not have, UsageError for a
    classifier, where there are no pictures or all failed, NothingToMeasureError where there is not
    one detection to ask.
    """
    if isinstance(explainer.detector, ClassifierDetector):
        raise UsageError("a classifier draws no boxes; expected a detector's archive")
    request = ExplainRequest(method=options.method, layer=options.layer)
    explainer.check(request)
    with list_input(options.inputs, options.output) as listing:
        entries = _drawn(listing, options)
        failures: list[Failure] = []
        found = list(_asked(explainer, listing, entries, options, failures))
        for failure in failures:
            say(f"{failure.key}: {failure.message}")
        if not found:
            raise _nothing(options, entries, failures)
        told = pairs(found)
        output = open_store(options.output)
        rows = shortcut_report.rows(found)
        remove_sheets(output)  # an earlier run's
        output.write(EVIDENCE, parquet_bytes(rows, shortcut_report.COLUMNS))
        part = shortcut_report.part(found, told)
        if options.examples:
            part = replace(part, images=tuple(_images(told, options)))
        keys = {printable(entry.key): entry.key for entry in entries}
        how = SheetOptions(options.score_threshold, request, options.examples)

        def picture(key: str) -> Tensor:
            return decode_picture(listing.store.read(keys[key]))

        write_part(output, part)
        drawn = sheets(explainer, picture, found, told, how) if options.examples else ()
        try:
            for name, image in drawn:
                output.write(f"{SHORTCUTS}{name}.jpg", encode_jpeg(image))
        except MissingObjectError as error:
            say(f"not all examples are drawn: {error}")
    _tell(told, found)
    print(f"{output.uri}/{EVIDENCE}, audit/{part.name}.json")
    return DONE_WITH_FAILURES if failures else DONE


def _images(told: Sequence[Pair], options: ShortcutsOptions) -> Iterator[Image]:
    """The sheets of the flagged pairs, for the report."""
    for each in told:
        if each.flagged:
            what = f"{each.category}, {each.place}"
            yield Image(
                f"{SHORTCUTS}{sheet_name(each)}.jpg",
                f"Examples of {what}",
                f"{what}: the detections that lose most, each with what is taken away, without it,"
                f" and with its heatmap ({options.method} on {options.layer}).",
            )


def _nothing(
    options: ShortcutsOptions, entries: Sequence[Entry], failures: Sequence[Failure]
) -> UsageError:
    """Why nothing was asked."""
    if len(failures) == len(entries):
        return UsageError(f"nothing to ask: all {counted(len(failures), 'picture')} failed")
    return NothingToMeasureError(
        f"nothing to ask: no box scores more than {options.score_threshold:g} in"
        f" {counted(len(entries), 'picture')} of {shortened(' '.join(options.inputs))}; lower"
        " --score-threshold"
    )


def _drawn(listing: Listing, options: ShortcutsOptions) -> list[Entry]:
    if options.pictures >= listing.count:
        return list(listing.entries())
    random = np.random.default_rng(options.seed)
    chosen = set(random.choice(listing.count, options.pictures, replace=False).tolist())
    return [entry for place, entry in enumerate(listing.entries()) if place in chosen]


def _asked(
    explainer: Explainer,
    listing: Listing,
    entries: Sequence[Entry],
    options: ShortcutsOptions,
    failures: list[Failure],
) -> Iterator[Evidence]:
    """What each detection answers, in the listing's order; notes the pictures that failed."""
    pools = Pools.start()
    try:
        donors = Donors()
        lending = entries[:: max(1, len(entries) // LENDING)][:LENDING]
        for picture, boxes in _found(explainer, listing, lending, options, pools, []):
            donors.add(printable(picture.key), picture.pixels, boxes)
        said, detections = time.monotonic(), 0
        for place, (picture, boxes) in enumerate(
            _found(explainer, listing, entries, options, pools, failures)
        ):
            name = printable(picture.key)
            random = np.random.default_rng([options.seed, place])
            chosen = sorted(random.permutation(len(boxes))[: options.per_picture].tolist())
            try:
                evidence = evidence_of(
                    *(explainer, name, picture.pixels, boxes, donors, options.batch_size, chosen)
                )
            except Exception as error:  # what a network raises for a picture is that picture's
                check_whose(error)
                failures.append(Failure.of(picture.key, "explain", error))
                continue
            yield from evidence
            detections += len(evidence)
            if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                of = counted(len(entries), "picture")
                say(f"{place + 1} of {of}, {counted(detections, 'detection')}")
    finally:
        pools.shutdown()


def _found(
    explainer: Explainer,
    listing: Listing,
    entries: Iterable[Entry],
    options: ShortcutsOptions,
    pools: Pools,
    failures: list[Failure],
) -> Iterator[tuple[Picture, list[Explanation]]]:
    """Each picture and all its detections over the threshold."""
    how = MeasureOptions(score_threshold=options.score_threshold, per_picture=sys.maxsize)
    for each in load_ahead(listing.store, entries, pools.transfer, 1):
        if isinstance(each, Failure):
            failures.append(each)
            continue
        try:
            boxes = [*chosen_boxes(explainer, each.pixels, how).boxes]
        except Exception as error:  # as above
            check_whose(error)
            failures.append(Failure.of(each.key, "explain", error))
            continue
        yield each, boxes


def _tell(told: Sequence[Pair], found: Sequence[Evidence]) -> None:
    flagged = [each for each in told if each.flagged]
    outside = sum(each.outside for each in found)
    print(
        f"{counted(len(found), 'detection')} asked, {outside} with evidence outside the box;"
        f" {counted(len(flagged), 'shortcut')} flagged"
    )
    for each in flagged:
        print(
            f"  {printable_text(each.category)}, {each.place}: {each.dependent} of"
            f" {each.detections} detections, in {each.dependent_pictures} of"
            f" {counted(each.pictures, 'picture')} (p {each.p:.2g})"
        )

"""Which method and layer explains an archive's detector best: each beside two controls.

Where the maps lie, on the boxes or on true objects, and deletion and insertion of at least so many
boxes, with standard errors, and each map's difference from each control, box by box (paired).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from archives.errors import MissedError, UsageError, shortened
from archives.errors import printable as printable_text
from archives.stores.opening import open_store
from archives.stores.store import Store
from handlers.metrics.faithfulness import FaithfulnessOptions
from jobs.audit.findings import Table, write_part
from jobs.audit.markdown import table_rows
from jobs.errors import DONE, DONE_WITH_FAILURES, NothingToMeasureError
from jobs.evaluation.measure import (
    GAUSSIAN,
    RANDOM,
    Maker,
    explained,
    figure_names,
    gaussian,
    measure,
    random_fields,
)
from jobs.evaluation.part import evaluation_part
from jobs.evaluation.record import RECORD, EvaluationRecord
from jobs.evaluation.requested_maps import requested
from jobs.evaluation.subjects import MeasureOptions, chosen_boxes
from jobs.evaluation.thresholds import REPORT, Measured, check_thresholds, write_audit
from jobs.inputs.listing import Listing, list_input
from jobs.names import printable
from jobs.options import EvaluateOptions
from jobs.progress import SECONDS_BETWEEN_LINES, counted
from jobs.scoring import detector_scores
from jobs.scoring.detector_scores import FOLDER, saved, scored, table_of
from jobs.scoring.reported import Reported
from jobs.scoring.summary import summarised
from jobs.scoring.tables import as_table, measured_boxes
from jobs.truth.objects import Objects, Truth
from jobs.worker.pictures import Failure, Pools, load_ahead
from jobs.worker.shard import check_whose

if TYPE_CHECKING:
    from handlers.explainer import Explainer

TABLE = "evaluation.md"
SHOWN_NAMES = 10


@dataclass(frozen=True)
class _Work:
    """What is done to each picture. truth: None where boxes are held against themselves.

    unknown: names of pictures that nobody annotated. categories: those that were met elsewhere.
    """

    explainer: Explainer
    makers: Mapping[str, Maker]
    how: MeasureOptions
    truth: Truth | None
    unknown: dict[str, None] = field(default_factory=dict)
    categories: set[str] = field(default_factory=set)

    def objects(self, key: str) -> Objects | None:
        """A picture's true objects, where they are asked for and known."""
        return None if self.truth is None else self.truth.objects(printable(key))

    def is_known(self, key: str) -> bool:
        """The picture can be held against what it is to be held against."""
        found = self.objects(key)
        if self.truth is not None and found is None:
            self.unknown[printable(key)] = None
            return False
        self.categories.update(found.categories if found else ())
        return True


def evaluate(options: EvaluateOptions, explainer: Explainer) -> int:
    """Measures, writes RECORD and TABLE to the output, and prints the table; returns 0, 3 if
    pictures failed, or 4 if a threshold was missed, which audit.json then says.

    What a run that was interrupted measured is kept, picture by picture. Raises RequestError for
    names that the detector does not know, ConflictError if the output holds another evaluation,
    UsageError if there are no pictures, all failed, or there is no truth where it is said to be,
    NothingToMeasureError if there is not one box to measure.
    """
    how = MeasureOptions(
        score_threshold=options.least_score,
        per_picture=options.per_picture,
        batch_size=options.batch_size,
        seed=options.seed,
        faithfulness=FaithfulnessOptions(options.steps, options.blur, options.growth),
    )
    makers: dict[str, Maker] = {}
    if options.controls:
        makers |= {GAUSSIAN: gaussian, RANDOM: random_fields(options.seed)}
    for name, request in requested(options, explainer).items():
        makers[name] = explained(explainer, request)
    names = figure_names(options.truth is not None)
    check_thresholds(
        options.thresholds,
        *(makers, options.controls, names),
        detector_scores.FIGURES if options.truth is not None else (),
    )
    with list_input(options.inputs, options.output) as listing:
        truth = _read_truth(options, explainer, listing)
        return _evaluate(options, listing, _Work(explainer, makers, how, truth))


def _read_truth(options: EvaluateOptions, explainer: Explainer, listing: Listing) -> Truth | None:
    """The true objects, where they are asked for."""
    if options.truth is None:
        return None
    from jobs.truth.reading import read_truth

    own = explainer.categories[explainer.detector.first_label :]
    return read_truth(options.truth, options.truth_format, pictures=listing.store, fallback=own)


def _alone(explainer: Explainer, annotated: Iterable[str]) -> list[str]:
    """Which categories only one side knows, in words."""
    own = explainer.categories[explainer.detector.first_label :]
    return [
        f"{counted(len(names), 'category', 'categories')} {text}: {_listed(names)}"
        for text, names in (
            ("annotated, and unknown to the detector", sorted({*annotated} - {*own})),
            ("known to the detector, and not annotated here", sorted({*own} - {*annotated})),
        )
        if names
    ]


def _evaluate(options: EvaluateOptions, listing: Listing, work: _Work) -> int:
    output = open_store(options.output)
    settings = {
        "detector": type(work.explainer.detector.model).__name__,
        "archive": _digest(work.explainer),
        "input": listing.fingerprint,
        "maps": list(work.makers),
        "figures": list(figure_names(work.truth is not None)),
        "truth": options.truth,
        "target": options.target,
        "precision": options.precision,
        **{name: value for name, value in asdict(work.how).items() if name != "batch_size"},
    }
    record = EvaluationRecord.resumed(output, settings)
    rows = record.rows
    failures: list[Failure] = []
    said = time.monotonic()
    enough = measured_boxes(rows) >= options.detections
    for each in () if enough else _measured(listing, record, work):
        if isinstance(each, Failure):
            failures.append(each)
            continue
        key, found, reported = each
        record.pictures[key] = found
        if work.truth is not None:
            record.detections[key] = reported
        rows += found
        record.write(output)
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            wanted = counted(options.detections, "box", "boxes")
            _say(f"{measured_boxes(rows)} of {wanted} measured")
        if measured_boxes(rows) >= options.detections:
            break
    if work.truth is not None and rows:
        failures += _detect_rest(listing, record, work, {each.key for each in failures})
        record.write(output)
    for failure in failures:
        _say(f"{failure.key}: {failure.message}")
    if work.unknown:
        pictures = counted(len(work.unknown), "picture")
        _say(f"{pictures} without annotations left out: {_listed([*work.unknown])}")
    if work.categories:
        for text in _alone(work.explainer, work.categories):
            _say(text)
    if not rows:
        raise _nothing(options, listing, len(failures), len(work.unknown))
    summary = summarised(rows)
    table = as_table(summary, settings, rows)
    detector: Table | None = None
    own: dict[str, float] = {}  # of the detector itself
    if work.truth is not None:
        saved_boxes = saved(record.detections, work.truth)
        saved_boxes.write(output, FOLDER)
        judged = scored(saved_boxes)
        detector, own = table_of(judged), detector_scores.figures_of(judged)
        rows_of_detector = "\n".join(table_rows(detector))
        table += f"\n{detector.title}:\n\n{rows_of_detector}\n\n{detector.text}\n"
    boxes = measured_boxes(rows)
    part = evaluation_part(summary, boxes, detector)
    write_part(output, replace(part, figures=part.figures | own))
    record.write(output, summary=summary)
    output.write(TABLE, table.encode())
    print(table)
    print(f"{output.uri}/{RECORD}, {TABLE}")
    if boxes < options.detections:
        _say(
            f"only {boxes} of {options.detections} boxes: there are no more pictures; give more, or"
            " raise --per-picture"
        )
    notes = f"input {' '.join(options.inputs)}; boxes scoring more than {options.least_score:g}"
    if options.truth is not None:
        notes += f", matched with the objects of {options.truth}"
    counts = (boxes, len(record.pictures), len(failures))
    measured = Measured(summary, *counts, options.detections, notes, own)
    if _misses(options, work.explainer, output, measured):
        return MissedError.exit_code
    return DONE_WITH_FAILURES if failures else DONE


def _nothing(options: EvaluateOptions, listing: Listing, failed: int, unknown: int) -> UsageError:
    """Why nothing was measured."""
    if failed == listing.count:
        return UsageError(f"nothing to measure: all {counted(failed, 'picture')} failed")
    if unknown == listing.count:
        return UsageError(
            f"nothing to measure: none of {counted(unknown, 'picture')} has annotations in"
            f" {shortened(str(options.truth))}"
        )
    which = f"no box scores more than {options.least_score:g}"
    if options.truth is not None:
        which += " and is matched with a true object"
    return NothingToMeasureError(
        f"nothing to measure: {which} in {counted(listing.count, 'picture')} of"
        f" {shortened(' '.join(options.inputs))}; lower --score-threshold"
    )


def _misses(
    options: EvaluateOptions, explainer: Explainer, output: Store, measured: Measured
) -> bool:
    """Whether a threshold was missed; says which, and writes the report that says so, too."""
    if not options.thresholds or explainer.manifest is None:
        return False
    missed = write_audit(output, explainer.manifest, measured, options.thresholds)
    for each in missed:
        _say(f"threshold missed: {each}")
    print(f"{output.uri}/{REPORT}: {'missed' if missed else 'passed'}")
    return bool(missed)


def _measured(
    listing: Listing, record: EvaluationRecord, work: _Work
) -> Iterator[tuple[str, list[dict[str, Any]], Reported] | Failure]:
    """The rows of each picture that is not done yet, in the listing's order, and what was detected
    there. Pictures whose truth nobody knows are not looked at."""
    left = (
        entry
        for entry in listing.entries()
        if entry.key not in record.pictures and work.is_known(entry.key)
    )
    pools = Pools.start()
    try:
        for each in load_ahead(listing.store, left, pools.transfer, 1):
            if isinstance(each, Failure):
                yield each
                continue
            objects = work.objects(each.key)
            try:
                subjects = chosen_boxes(work.explainer, each.pixels, work.how, objects)
                found = measure(work.explainer, each.pixels, subjects, work.makers, work.how)
            except Exception as error:  # what a network raises for a picture is that picture's
                check_whose(error)
                yield Failure.of(each.key, "explain", error)
                continue
            rows = [{"picture": each.key, **row} for row in found]
            yield each.key, rows, subjects.reported
    finally:
        pools.shutdown()


def _detect_rest(
    listing: Listing, record: EvaluationRecord, work: _Work, failed: set[str]
) -> list[Failure]:
    """Detects in the pictures that no map was measured on: average precision is of all of them."""
    failures = []
    left = (
        entry
        for entry in listing.entries()
        if entry.key not in record.detections
        and entry.key not in failed
        and work.is_known(entry.key)
    )
    pools = Pools.start()
    try:
        for each in load_ahead(listing.store, left, pools.transfer, 1):
            if isinstance(each, Failure):
                failures.append(each)
                continue
            try:
                (found,) = work.explainer.detect([each.pixels])
            except Exception as error:  # as above
                check_whose(error)
                failures.append(Failure.of(each.key, "explain", error))
                continue
            record.detections[each.key] = Reported.of(found, work.explainer.categories)
    finally:
        pools.shutdown()
    return failures


def _digest(explainer: Explainer) -> str:
    return explainer.manifest.digest if explainer.manifest else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return shortened(", ".join(names[:SHOWN_NAMES])) + more


def _say(text: str) -> None:
    print(f"jobs: {printable_text(text)}", file=sys.stderr, flush=True)

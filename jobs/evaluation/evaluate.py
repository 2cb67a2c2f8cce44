"""Which method and layer explains an archive's detector best: each beside two controls.

Where the maps lie, on the boxes or on true objects, and deletion and insertion of at least so many
boxes, with standard errors, and each map's difference from each control, box by box (paired).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from archives.errors import MissedError, UsageError, shortened
from archives.stores.opening import open_store
from archives.stores.store import Store
from handlers.metrics.faithfulness import FaithfulnessOptions
from jobs.audit.findings import Table, write_part
from jobs.audit.markdown import table_rows
from jobs.errors import DONE, DONE_WITH_FAILURES, NothingToMeasureError
from jobs.evaluation.looking import Work, detect_rest, measure_boxes
from jobs.evaluation.measure import (
    GAUSSIAN,
    RANDOM,
    Maker,
    explained,
    figure_names,
    gaussian,
    random_fields,
)
from jobs.evaluation.part import UNMATCHED, evaluation_part
from jobs.evaluation.record import RECORD, EvaluationRecord
from jobs.evaluation.requested_maps import requested
from jobs.evaluation.subjects import MeasureOptions
from jobs.evaluation.thresholds import REPORT, Measured, check_thresholds, write_audit
from jobs.inputs.listing import Listing, list_input
from jobs.notes import say
from jobs.options import EvaluateOptions
from jobs.progress import counted
from jobs.scoring import detector_scores
from jobs.scoring.detector_scores import FOLDER, saved, scored, table_of
from jobs.scoring.summary import summarised
from jobs.scoring.tables import as_table, curves_text
from jobs.truth.objects import Truth

if TYPE_CHECKING:
    from handlers.explainer import Explainer

TABLE = "evaluation.md"
SHOWN_NAMES = 10


def evaluate(options: EvaluateOptions, explainer: Explainer) -> int:
    """Measures, writes RECORD and TABLE to the output, and prints the table; returns 0, 3 if
    pictures failed, or 4 if a threshold was missed, which audit.json then says.

    What a run that was interrupted found is kept, but for its last seconds; pictures that failed
    are kept as failed, as a job keeps them. Raises RequestError for names that the detector does
    not know, ConflictError if the output holds another evaluation, UsageError if there are no
    pictures, all failed, or there is no truth where it is said to be, NothingToMeasureError if
    there is not one box to measure, nor a true object to score the detector by.
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
        return _evaluate(options, listing, Work(explainer, makers, how, truth))


def _read_truth(options: EvaluateOptions, explainer: Explainer, listing: Listing) -> Truth | None:
    """The true objects, where they are asked for."""
    if options.truth is None:
        return None
    from jobs.truth.reading import read_truth

    own = explainer.categories[explainer.detector.first_label :]
    return read_truth(options.truth, options.truth_format, pictures=listing.store, fallback=own)


def _alone(explainer: Explainer, annotated: Set[str]) -> list[str]:
    """Which categories only one side knows, in words."""
    own = {*explainer.categories[explainer.detector.first_label :]}
    return [
        f"{counted(len(names), 'category', 'categories')} {text}: {_listed(names)}"
        for text, names in (
            ("annotated, and unknown to the detector", sorted(annotated - own)),
            ("known to the detector, and not annotated here", sorted(own - annotated)),
        )
        if names
    ]


def _evaluate(options: EvaluateOptions, listing: Listing, work: Work) -> int:
    output = open_store(options.output)
    settings = {
        "detector": type(work.explainer.detector.model).__name__,
        "archive": _digest(work.explainer),
        "input": listing.fingerprint,
        "maps": list(work.makers),
        "figures": list(figure_names(work.truth is not None)),
        "truth": options.truth,
        "truth_format": None if work.truth is None else work.truth.form,
        "annotations": None if work.truth is None else work.truth.fingerprint(),
        "target": options.target,
        "precision": options.precision,
        **{name: value for name, value in asdict(work.how).items() if name != "batch_size"},
    }
    record = EvaluationRecord(output, settings)
    measure_boxes(listing, record, work, options.detections)
    rows = record.rows
    if work.truth is not None:
        detect_rest(listing, record, work)
    failures = record.found.failures
    for failure in failures.values():
        say(f"{failure.key}: {failure.message}")
    if work.unknown:
        pictures = counted(len(work.unknown), "picture")
        say(f"{pictures} without annotations left out: {_listed([*work.unknown])}")
    detector, own = _detector_scores(output, record, work)
    if not rows and not own:
        record.finish()
        raise _nothing(options, listing, len(failures), len(work.unknown))
    summary = summarised(rows)
    table = as_table(summary, settings, rows) if rows else f"{UNMATCHED}\n"
    if detector is not None:
        rows_of_detector = "\n".join(table_rows(detector))
        table += f"\n{detector.title}:\n\n{rows_of_detector}\n\n{detector.text}\n"
    boxes = record.boxes
    curves = curves_text(settings["faithfulness"], rows) if rows else ""
    part = evaluation_part(summary, boxes, detector, curves)
    figures = {**part.figures, **own, "failed pictures": float(len(failures))}
    write_part(output, replace(part, figures=figures))
    record.finish(summary=summary)
    output.write(TABLE, table.encode())
    print(table)
    print(f"{output.uri}/{RECORD}, {TABLE}")
    if boxes < options.detections:
        say(
            f"only {boxes} of {options.detections} boxes: there are no more pictures; give more, or"
            " raise --per-picture"
        )
    notes = f"input {' '.join(options.inputs)}; boxes scoring more than {options.least_score:g}"
    if options.truth is not None:
        notes += f", matched with the objects of {options.truth}"
    counts = (boxes, len(record.found.pictures), len(failures))
    measured = Measured(summary, *counts, options.detections, notes, own)
    if _misses(options, work.explainer, output, measured):
        return MissedError.exit_code
    return DONE_WITH_FAILURES if failures else DONE


def _detector_scores(
    output: Store, record: EvaluationRecord, work: Work
) -> tuple[Table | None, dict[str, float]]:
    """Where there is a truth, the detector's own scores and figures; saves its boxes."""
    if work.truth is None or not record.found.detections:
        return None, {}
    boxes = saved(record.found.detections, work.truth)
    boxes.write(output, FOLDER)
    annotated = {str(each) for each in boxes.truths["category"].unique().to_pylist()}
    for text in _alone(work.explainer, annotated):
        say(text)
    judged = scored(boxes)
    return table_of(judged), detector_scores.figures_of(judged)


def _nothing(options: EvaluateOptions, listing: Listing, failed: int, unknown: int) -> UsageError:
    """Why nothing was measured."""
    if unknown == listing.count:
        return UsageError(
            f"nothing to measure: none of {counted(unknown, 'picture')} has annotations in"
            f" {shortened(str(options.truth))}"
        )
    if failed + unknown == listing.count:
        which = f"all {counted(failed, 'picture')}{' with annotations' * bool(unknown)} failed"
        return UsageError(f"nothing to measure: {which}")
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
        say(f"threshold missed: {each}")
    print(f"{output.uri}/{REPORT}: {'missed' if missed else 'passed'}")
    return bool(missed)


def _digest(explainer: Explainer) -> str:
    return explainer.manifest.digest if explainer.manifest else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return shortened(", ".join(names[:SHOWN_NAMES])) + more

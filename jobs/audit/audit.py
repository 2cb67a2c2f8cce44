"""A whole audit from one file: explain, evaluate, compare, report; then whether all is well."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from archives.errors import CommandError, MissedError, one_line, shortened
from archives.names import looks_like_reference, read_reference
from archives.registry.audit_report import AuditedArchive, AuditReport, Threshold
from archives.stores.opening import open_store
from archives.stores.store import Store
from jobs import record
from jobs.audit.findings import Part, read_part, remove_part, remove_sheets, write_part
from jobs.audit.hook import check_hook, tell
from jobs.audit.options import AuditOptions
from jobs.audit.plan import DATE, STEPS, Plan, Run, check, command_of, dated, read_plan
from jobs.audit.retention import days_runs, remove_old
from jobs.errors import DONE, DONE_WITH_FAILURES, Interrupted, NothingToMeasureError
from jobs.evaluation.thresholds import REPORT, parsed
from jobs.interruption import interruptible
from jobs.lease import AUDIT, Lease
from jobs.names import PAGE, SANITY_SHEET
from jobs.notes import say
from jobs.progress import counted

# Runs before this one whose figures are plotted, at most.
MOST_EARLIER = 30
GOOD = (DONE, DONE_WITH_FAILURES)
NOTHING = NothingToMeasureError.exit_code
# Exit codes from here on are of an end by a signal.
INTERRUPTED = 128
FAILED_STEPS = "failed steps"
# The parts of steps whose names differ.
PARTS = {"evaluate": "evaluation", "compare": "changes"}
Main = Callable[[Sequence[str]], int]


@dataclass
class Outcome:
    """What became of the steps: the exit code of each that was done."""

    codes: dict[str, int] = field(default_factory=dict)

    def failed(self) -> list[str]:
        """Steps that did not do what they were for; a missed threshold is no failure, nor is a
        night with nothing to measure."""
        fine = (*GOOD, MissedError.exit_code, NOTHING)
        return [step for step, code in self.codes.items() if code not in fine]

    def idle(self) -> list[str]:
        """Steps that had nothing to measure."""
        return [step for step, code in self.codes.items() if code == NOTHING]

    def notes(self) -> list[str]:
        """What is to be said of the steps, in a line each."""
        return [
            f"{what}: {', '.join(f'{step} ({self.codes[step]})' for step in steps)}"
            for what, steps in (
                ("steps that failed", self.failed()),
                ("steps with nothing to measure", self.idle()),
            )
            if steps
        ]


def audit(options: AuditOptions, main: Main | None = None) -> int:
    """Does it; returns the exit code.

    main: runs a command line, `jobs.__main__.main` unless a test has another. Raises UsageError for
    a plan that makes no sense, before anything is done, ConflictError where another audit is at
    work at the same output.
    """
    plan = read_plan(options.config, options.keep)
    today = date.fromisoformat(options.date) if options.date else datetime.now(UTC).date()
    run = _run_of(plan, today)
    check(run)
    if plan.hook is not None:
        check_hook(plan.hook)
    thresholds = [parsed(each) for each in plan.thresholds]
    if options.dry_run:
        for step in STEPS:
            line = command_of(step, run)
            if line is not None:
                print(f"python -m jobs {shlex.join(line)}")
        return DONE
    try:
        output = open_store(run.output)
        with interruptible(), Lease(output, AUDIT):
            code, text, broken = _night(run, output, thresholds, main or _main())
    except (CommandError, Interrupted) as error:
        _tell(plan, _unsaid(f"the audit ended with {error.exit_code}: {one_line(error)}"))
        raise
    if code not in GOOD:
        _tell(plan, text or _unsaid(broken))
    if plan.keep is not None and not broken:
        _clean(plan, today, plan.keep)
    return code


def _night(
    run: Run, output: Store, thresholds: Sequence[Threshold], main: Main
) -> tuple[int, bytes, str]:
    """All steps: the exit code, audit.json's text, and where it broke off if it did."""
    for name in (REPORT, PAGE):  # those of an earlier attempt are no verdict on this one
        output.delete(name)
    if not run.plan.pictures:  # they may have been shown before
        remove_sheets(output)
        output.delete(SANITY_SHEET)
    outcome = Outcome()
    code = outcome.codes["explain"] = _step("explain", run, main)
    if code not in GOOD:
        return code, b"", f"explain ended with {code}"
    run = _settled(run)
    for step in STEPS[1:-1]:  # an earlier attempt's parts would look like this one's
        remove_part(output, PARTS.get(step, step))
    for step in STEPS[1:-1]:
        if command_of(step, run) is not None:
            code = outcome.codes[step] = _step(step, run, main)
            if code >= INTERRUPTED:
                return code, b"", f"{step} ended with {code}"
    for step in outcome.failed():
        remove_part(output, PARTS.get(step, step))
    for step in outcome.idle():
        write_part(output, _idle(step, run))
    report, text = _written(output, outcome, thresholds)
    outcome.codes["report"] = _step("report", run, main)
    if "report" in outcome.failed():  # which the gate has to know
        report, text = _written(output, outcome, thresholds)
    return _said(output, report, outcome), text, ""


def _main() -> Main:
    from jobs.__main__ import main  # which knows the command that this is of

    return main


def _run_of(plan: Plan, today: date) -> Run:
    """The run of a day, with those before it."""
    update: dict[str, Any] = {"input": tuple(dated(each, today) for each in plan.input)}
    if plan.truth is not None:
        place = dated(plan.truth.place, today)
        update["truth"] = plan.truth.model_copy(update={"place": place})
    plan = plan.model_copy(update=update)
    if DATE not in plan.output:
        return Run(plan, plan.output)
    before = days_runs(plan.output, today)
    places = tuple(each.place for each in before)
    return Run(
        plan, dated(plan.output, today), places[-1] if places else None, places[-MOST_EARLIER:]
    )


def _settled(run: Run) -> Run:
    """With the version that was explained in the place of an alias, which may move meanwhile."""
    if not looks_like_reference(run.plan.archive) or os.path.lexists(run.plan.archive):
        return run
    reference = read_reference(run.plan.archive)
    found = record.read_record(open_store(run.output))
    assert found is not None  # explain has done it
    archive = f"{reference.name}@{found['archive']['version']}"
    return replace(run, plan=run.plan.model_copy(update={"archive": archive}))


def _step(step: str, run: Run, main: Main) -> int:
    line = command_of(step, run)
    assert line is not None
    print(f"\n{step}:", flush=True)
    return main(line)


def _idle(step: str, run: Run) -> Part:
    """The part of a step that had nothing to measure: without figures, so that a threshold that
    names one is missed."""
    text = "There was nothing to measure: no box that it asks about, or no truth of one."
    if step == "compare":
        line = command_of(step, run)
        assert line is not None
        told = [f"{_pictures(place)} of {shortened(place)}" for place in line[1:3]]
        text = f"No picture is in both runs: nothing to compare, of {' and '.join(told)}."
    name = PARTS.get(step, step)
    return Part(name, f"{name.capitalize()}: nothing to measure", text)


def _pictures(place: str) -> str:
    found = record.read_record(open_store(place))
    assert found is not None  # it was compared
    return counted(found["counts"]["pictures"], "picture")


def _written(
    output: Store, outcome: Outcome, thresholds: Sequence[Threshold]
) -> tuple[AuditReport, bytes]:
    """audit.json, and its text, written."""
    report = _report(output, outcome, thresholds)
    text = report.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"
    output.write(REPORT, text)
    return report, text


def _report(output: Store, outcome: Outcome, thresholds: Sequence[Threshold]) -> AuditReport:
    """All that was measured, held against the thresholds."""
    found = record.read_record(output)
    assert found is not None  # explain has done it
    counts = found["counts"]
    figures = {
        "pictures": float(counts["pictures"]),
        "boxes": float(counts["detections"]),
        "failed pictures": float(counts["failures"]),
        FAILED_STEPS: float(len(outcome.failed())),
    }
    for step in outcome.codes:
        name = PARTS.get(step, step)
        part = read_part(output, name)
        for figure, value in (part.figures if part else {}).items():
            figures[f"{name}: {figure}" if figure in figures else figure] = value
    archive = found["archive"]
    unjudged = AuditReport(
        archive=AuditedArchive(**{name: archive[name] for name in ("name", "version", "digest")}),
        created=datetime.now(UTC),
        figures=figures,
        thresholds=(Threshold.model_validate({"figure": FAILED_STEPS, "at_most": 0}), *thresholds),
        passed=True,
        notes="; ".join(outcome.notes()),
        links={"report": f"{output.uri}/{PAGE}"},
    )
    return unjudged.model_copy(update={"passed": not unjudged.misses()})


def _said(output: Store, report: AuditReport, outcome: Outcome) -> int:
    """Prints whether all is well; returns the exit code."""
    print()
    for each in report.misses():
        say(f"threshold missed: {each}")
    for note in outcome.notes():
        say(note)
    print(f"{'passed' if report.passed else 'MISSED'}: {output.uri}/{REPORT}")
    print(f"look at {output.uri}/{PAGE}")
    if not report.passed:
        return MissedError.exit_code
    return DONE_WITH_FAILURES if DONE_WITH_FAILURES in outcome.codes.values() else DONE


def _unsaid(notes: str) -> bytes:
    """What the hook is told where there is no audit.json."""
    return json.dumps({"passed": False, "notes": notes}).encode()


def _tell(plan: Plan, told: bytes) -> None:
    """Calls the hook; a hook that fails is said, and changes nothing."""
    if plan.hook is not None:
        say(tell(plan.hook, told) or "the hook was told")


def _clean(plan: Plan, today: date, keep: int) -> None:
    """Removes runs that are older than is kept; what cannot be removed is said, and changes
    nothing."""
    number = 0
    try:
        for run, problem in remove_old(plan.output, today, keep):
            if problem:
                say(f"{run.place} is left: {problem}")
            number += not problem
    except CommandError as error:
        say(f"old runs are left: {one_line(error)}")
    if number:
        last = today - timedelta(days=keep)
        print(f"{counted(number, 'run')} before {last.isoformat()} removed")

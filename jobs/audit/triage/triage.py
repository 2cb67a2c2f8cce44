"""`python -m jobs triage`: which pictures of a run need a person, and why."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import numpy as np

from archives.errors import UsageError, shortened
from archives.stores.opening import open_store
from jobs.audit.changes.differences import detections
from jobs.audit.findings import AUDIT, Finding, write_part
from jobs.audit.triage import report
from jobs.audit.triage.asking import Answer, Question, Steadiness, answers, request_of
from jobs.audit.triage.errors import judged, missed_finding
from jobs.audit.triage.gathered import LEAST_STABILITY, Triage
from jobs.audit.triage.looks import Look, entropy
from jobs.audit.triage.noticed import MISSED, UNSTABLE, Noticed, by_picture
from jobs.audit.triage.options import TriageOptions
from jobs.audit.triage.usual import BINS, place_of
from jobs.errors import DONE, DONE_WITH_FAILURES
from jobs.notes import say
from jobs.numbers_in_json import plain
from jobs.progress import SECONDS_BETWEEN_LINES, counted
from jobs.saved_run import SavedPicture, SavedRun
from jobs.tables import parquet_bytes
from jobs.truth.objects import Truth
from jobs.worker.pictures import Failure

if TYPE_CHECKING:
    from handlers.explainer import Explainer

SUMMARY, TABLE = "triage.json", "triage.parquet"


def triage(options: TriageOptions, explainer: Explainer) -> int:
    """Writes SUMMARY, TABLE and the part "triage" to the output, and prints what was found; returns
    0, or 3 if pictures could not be looked at again.

    Raises UsageError where there is no finished run of this archive that explained reported boxes
    one by one, or no such annotations.
    """
    run = SavedRun.open(options.run)
    _check(run, explainer)
    output = open_store(options.output)
    request = request_of(run.record)
    explainer.check(request)
    known = explainer.categories[explainer.detector.first_label :]
    found = Triage.of(options)
    _read(run, _truth(options, run, known), known, found)
    if not found.pictures:
        raise UsageError(f"nothing to look at: {shortened(run.output.uri)} has no pictures")
    questions = _questions(found)
    steadiness: list[tuple[Answer, Steadiness]] = []
    said = time.monotonic()
    for each in answers(explainer, run.source(), questions, request, options):
        if isinstance(each, Failure):
            found.failures.append(each)
            continue
        found.asked += 1
        _explain_misses(each, found)
        steadiness += [(each, own) for own in each.steadiness]
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            done = found.asked + len(found.failures)
            say(f"{done} of {counted(len(questions), 'picture')} looked at again")
    _judge_steadiness(steadiness, found)
    for failure in found.failures:
        say(f"{failure.key}: {failure.message}")
    ranked = by_picture(found.findings.all())
    told = report.Told(run.output.uri, run.record["archive"], found, ranked)
    output.write(TABLE, parquet_bytes(report.rows(told), report.COLUMNS))
    summary = json.dumps(plain(report.summary(told)), indent=1, allow_nan=False)
    output.write(SUMMARY, summary.encode() + b"\n")
    write_part(output, report.part(told))
    print(report.text(told))
    print(f"\n{output.uri}/{SUMMARY}, {TABLE}, {AUDIT}{report.PART}.json")
    return DONE_WITH_FAILURES if found.failures else DONE


def _check(run: SavedRun, explainer: Explainer) -> None:
    record, place = run.record, shortened(run.output.uri)
    made_by = record["archive"]
    if explainer.manifest is not None and explainer.manifest.digest != made_by["digest"]:
        raise UsageError(
            f"the run at {place} was made by another archive, {made_by['name']}"
            f" {made_by['version']} ({made_by['digest'][:12]}...); expected --archive to be that"
        )
    for name, option in (("box", "--box"), ("candidates", "--candidates"), ("sum_boxes", None)):
        if record["options"].get(name):
            raise UsageError(
                f"the run at {place} was made with {option or '--sum-boxes'}; expected one that"
                " explains reported boxes one by one"
            )


def _truth(options: TriageOptions, run: SavedRun, known: tuple[str, ...]) -> Truth | None:
    if options.truth is None:
        return None
    from jobs.truth.reading import read_truth  # which only annotations need

    return read_truth(
        *(options.truth, options.truth_format),
        pictures=run.source(),
        masks=False,
        fallback=known,
    )


def _read(run: SavedRun, truth: Truth | None, known: tuple[str, ...], found: Triage) -> None:
    """Everything that the run alone, and the annotations, say."""
    said = time.monotonic()
    for picture in run.pictures():
        found.pictures += 1
        rows = [own[0] for own in detections(picture.rows)]
        found.detections += len(rows)
        for row in rows:
            look = Look(
                *(picture.key, picture.name, int(row["index"]), str(row["category"])),
                *(float(row["score"]), float(row["energy_in_box"])),
                entropy(picture.explanation(row)),
            )
            found.looks.add(look, found.findings)
        if rows:
            found.sample.add((picture.key, picture.name))
        if truth is not None:
            _hold_against(picture, truth, known, found)
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            say(f"{counted(found.pictures, 'picture')} read")
    found.looks.finish(found.findings)


def _hold_against(
    picture: SavedPicture, truth: Truth, known: tuple[str, ...], found: Triage
) -> None:
    objects = truth.objects(picture.key)
    if objects is None:
        return
    found.annotated += 1
    found.unknown.update(name for name in objects.categories if name not in known)
    rows = [own[0] for own in detections(picture.rows)]
    verdict = judged(picture, rows, objects, known)
    found.objects += verdict.objects
    found.missed_objects += len(verdict.missed) + len(verdict.explained)
    found.whys.update(verdict.explained)
    for each in verdict.found:
        found.findings.add(each)
    for missed in verdict.missed:
        found.findings.count(MISSED, missed.category, 1)
    if verdict.missed:
        found.missed.add((picture.key, picture.name, verdict.missed))


def _questions(found: Triage) -> list[Question]:
    """At most half of the pictures to be moved look worst so far, the others are drawn at
    random."""
    most = found.options.most
    worst = [*by_picture(found.findings.all()).items()][: most // 2]
    moving = {key: own[0].finding.key for key, own in worst}
    order = np.random.default_rng(found.options.seed).permutation(len(found.sample.items))
    drawn = dict(found.sample.items[place] for place in order[: most - len(worst)])
    found.drawn = set(drawn)
    moving |= drawn
    missed = {key: (name, objects) for key, name, objects in found.missed.items}
    return [
        Question(
            key,
            moving[key] if key in moving else missed[key][0],
            key in moving,
            missed[key][1] if key in missed else (),
        )
        for key in sorted(moving.keys() | missed.keys())
    ]


def _explain_misses(answer: Answer, found: Triage) -> None:
    question = answer.question
    for missed, why in zip(question.missed, answer.whys, strict=True):
        found.whys[why.kind] += 1
        found.findings.keep(missed_finding(question.key, question.name, missed, why))


def _judge_steadiness(steadiness: list[tuple[Answer, Steadiness]], found: Triage) -> None:
    """Tells which detections are unstable, by what the pictures drawn at random say is usual."""
    for answer, own in steadiness:
        if answer.question.key in found.drawn:
            found.stability.add(own.kept.stability)
    found.stability_limit = found.stability.low(LEAST_STABILITY)
    for answer, own in steadiness:
        lost = own.kept.stability == 0
        if not lost and place_of(own.kept.stability) >= round(found.stability_limit * BINS):
            continue
        each = own.explanation
        right, down = own.move
        says = (
            f"{each.category} {each.score:.2f}: of the picture moved by {right}, {down} px"
            f" {own.kept.says}"
        )
        severity = min(each.score * (1 - own.kept.stability), 1.0)
        finding = Finding(answer.question.name, each.index, UNSTABLE, severity, says)
        found.findings.add(Noticed(answer.question.key, each.category, finding))

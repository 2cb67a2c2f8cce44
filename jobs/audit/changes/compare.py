"""`python -m jobs compare`: two runs held against each other."""

from __future__ import annotations

import json
import time

from archives.errors import shortened
from archives.stores.opening import open_store
from jobs.audit.changes import report
from jobs.audit.changes.differences import Reach, changes
from jobs.audit.changes.merging import Pictures, merged
from jobs.audit.changes.options import CompareOptions
from jobs.audit.changes.rows import TABLE, written
from jobs.audit.changes.settings import differing
from jobs.audit.changes.tally import Tally
from jobs.audit.findings import AUDIT, write_part
from jobs.errors import DONE, NothingToMeasureError
from jobs.notes import say
from jobs.numbers_in_json import plain
from jobs.progress import SECONDS_BETWEEN_LINES, counted
from jobs.saved_run import SavedRun

SUMMARY = "changes.json"


def compare(options: CompareOptions) -> int:
    """Writes SUMMARY, TABLE and the part "changes" to the output, prints what changed; returns 0.

    Memory does not grow with the pictures. Raises UsageError where there is no finished run,
    NothingToMeasureError where the two have no picture in common.
    """
    before, after = SavedRun.open(options.before), SavedRun.open(options.after)
    output = open_store(options.output)
    reaches = Reach.of(before.record["options"]), Reach.of(after.record["options"])
    pictures, tally = Pictures(), Tally(options.top)
    said = time.monotonic()
    with written(output) as table:
        for one, other in merged(before, after, pictures):
            found = changes(one, other, reaches, options.iou)
            table.add(one.name, found)
            tally.add(one.name, found)
            if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                done = f"{counted(pictures.compared, 'picture')} compared"
                say(done)
        if not pictures.compared:
            raise NothingToMeasureError(_nothing(before, after, pictures))
    compared = report.Compared(
        options,
        before.output.uri,
        after.output.uri,
        tuple(differing(before.record, after.record)),
        pictures,
        tally,
        tuple(tally.tests(options.alpha)),
        tuple(tally.worst()),
    )
    summary = json.dumps(plain(report.summary(compared)), indent=1, allow_nan=False)
    output.write(SUMMARY, summary.encode() + b"\n")
    write_part(output, report.part(compared))
    if options.json:
        print(summary)
        return DONE
    print(report.text(compared))
    print(f"\n{output.uri}/{SUMMARY}, {TABLE}, {AUDIT}{report.PART}.json")
    return DONE


def _nothing(before: SavedRun, after: SavedRun, pictures: Pictures) -> str:
    told = [
        f"{what} {', '.join(noted.first)}"
        for what, noted in (
            ("before alone are", pictures.only_before),
            ("after alone are", pictures.only_after),
            ("failed in a run are", pictures.failed),
            ("another picture under one name are", pictures.other_content),
        )
        if noted.count
    ]
    return (
        f"nothing to compare: {shortened(before.output.uri)} and {shortened(after.output.uri)} have"
        f" no picture in common ({'; '.join(told) or 'they have none'}); keys count from the input"
        " that each run was given"
    )

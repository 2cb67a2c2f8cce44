"""The end of a run: its counts in run.json, a first look, and COCO's results where asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from archives.errors import UsageError, printable
from archives.stores.opening import open_store
from archives.stores.store import Store
from jobs import errors, record
from jobs.coco import write_coco
from jobs.inputs.plan import Plan
from jobs.lease import ALL, Lease
from jobs.names import COCO_RESULTS, CONTACT_SHEET, PAGE, RECORD
from jobs.options import JobOptions, ReportOptions
from jobs.page.options import ReportPageOptions
from jobs.progress import counted, speed
from jobs.record import Tally
from jobs.status import added_up


def report_command(options: ReportOptions) -> int:
    """`python -m jobs report OUTPUT`: what the parts of a run left becomes one, and is shown in
    OUTPUT/report/.

    Raises UsageError if there is no run, or if shards are missing.
    """
    place = options.output
    output = open_store(place)
    with Lease(output, ALL) as lease:
        found = record.read_record(output)
        if found is None:
            raise UsageError(f"there is no run in {place}: no {RECORD}")
        shards = found["counts"]["shards"]
        tally, missing = added_up(output, shards)
        if missing:
            raise UsageError(
                f"{shards - tally.shards} of {counted(shards, 'shard')} are not done, the first is"
                f" {missing[0][0]}; run the job again, with the same --shard where it has parts"
            )
        sheet = False
        if found["execution"]["pictures"] and tally.counts()["detections"]:
            from jobs.contact_sheet import write_contact_sheet  # it needs torch

            source = open_store(found["input"]["root"])
            sheet = write_contact_sheet(source, output, _plan(found, output))
        lease.check()
        code = finish(found, output, tally, sheet, options.coco)
        _write_page(output, options.page)
    return code


def _write_page(output: Store, options: ReportPageOptions) -> None:
    from jobs.page.report import write_report  # these need torch
    from jobs.saved_run import SavedRun

    found = record.read_record(output)
    assert found is not None  # it was written just now
    pictures = options.pictures and found["execution"]["pictures"]
    write_report(SavedRun(output, found), output, replace(options, pictures=pictures))
    print(f"  report       {output.uri}/{PAGE}")


def _plan(found: Mapping[str, Any], output: Store) -> Plan:
    return Plan(output, found["options"]["shard_size"], found["counts"]["pictures"])


def finish(mine: dict[str, Any], output: Store, tally: Tally, sheet: bool, coco: bool) -> int:
    """Writes COCO's results where asked for, and run.json; prints a summary, returns the exit
    code. sheet: whether there is a contact sheet."""
    if coco:
        write_coco(output, _plan(mine, output))
    has_coco = coco or mine.get("outputs", {}).get("coco", False)  # an earlier report's
    mine["outputs"] = {"contact_sheet": sheet, "coco": has_coco}
    mine = record.finished(mine, tally)
    record.write_record(output, mine)
    return summarise(mine, output)


def summarise(found: Mapping[str, Any], output: Store) -> int:
    """Prints what was found and where it lies; returns the exit code."""
    counts, times = found["counts"], found["times"]
    pictures, boxes = counts["pictures"], counts["detections"]
    took = f"{times['seconds']:.1f} s ({speed(pictures, times['seconds'])})"
    categories = ", ".join(f"{name} {number}" for name, number in counts["categories"].items())
    print(f"{counted(pictures, 'picture')} in {took}, {counted(boxes, 'box', 'boxes')} explained.")
    if categories:
        print(f"  by category  {printable(categories)}")
    print(f"  the run      {output.uri}/{RECORD}")
    if found["outputs"]["contact_sheet"]:
        print(f"  first look   {output.uri}/{CONTACT_SHEET}")
    print(f"  tables       {output.uri}/shards/*/detections.parquet, heatmaps.npz beside each")
    if found["outputs"]["coco"]:
        print(f"  COCO         {output.uri}/{COCO_RESULTS}")
    if found["options"]["overlays"] != "none":
        print(f"  overlays     {output.uri}/shards/*/overlays/")
    if found["options"].get("save_raw"):
        print(f"  raw          {output.uri}/shards/*/raw/")
    return _exit_code(counts, output)


def summarise_part(options: JobOptions, output: Store, tally: Tally) -> int:
    """Prints what one part of a run has done; returns the exit code."""
    assert options.shard is not None
    index, count = options.shard
    counts = tally.counts()
    print(
        f"Part {index} of {count} is done: {counted(counts['shards'], 'shard')},"
        f" {counted(counts['pictures'], 'picture')},"
        f" {counted(counts['detections'], 'box', 'boxes')} explained. Once all parts are done:"
        f" python -m jobs report {options.output}"
    )
    return _exit_code(counts, output)


def _exit_code(counts: Mapping[str, Any], output: Store) -> int:
    if not counts["failures"]:
        return errors.DONE
    print(
        f"jobs: {counts['failures']} of {counted(counts['pictures'], 'picture')} could not be done;"
        f" why: {output.uri}/shards/*/failures.parquet",
        file=sys.stderr,
        flush=True,
    )
    return errors.DONE_WITH_FAILURES

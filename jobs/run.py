"""The local engine: one job from its listing to its summary, shard after shard."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs import errors, record
from jobs.listing import Listing, list_input
from jobs.names import CONTACT_SHEET, RECORD
from jobs.options import JobOptions, WorkOrder
from jobs.progress import Progress, counted, speed
from jobs.shard import Pools, Task, load_ahead, read_stats, run_shard
from jobs.store import Store, open_store

if TYPE_CHECKING:
    from handlers.explainer import Explainer
    from handlers.schema import ExplainRequest

MOST_PICTURES_DRAWN_UNASKED = 100


def run(order: WorkOrder, explainer: Explainer, request: ExplainRequest) -> int:
    """Does what is missing of a job; returns 0, or 3 if pictures failed.

    Raises ConflictError if the output belongs to another job, or any other JobError. What was
    committed before that stays, and the same call does the rest.
    """
    options = order.options
    assert isinstance(options, JobOptions)
    output = open_store(options.output)
    before = record.read_record(output)
    listing = list_input(options.inputs, options.output)
    shards = listing.shards(options.shard_size)
    overlays = _overlays(options.overlays, listing)
    mine = record.new_record(order, request, overlays, listing, len(shards))
    if before is not None:
        record.check_same_job(before, mine, output.uri)
        mine["times"]["started"] = before["times"]["started"]
    pools = Pools.start()
    try:
        found = pools.transfer.map(lambda number: read_stats(output, number), range(len(shards)))
        stats = {number: each for number, each in enumerate(found) if each is not None}
        if before is not None and before["status"] == record.DONE and len(stats) == len(shards):
            print("This run is done already; nothing was changed.")
            return _summarise(before, output)
        record.write_record(output, mine)  # also shows, before any work, that it can be written
        if stats:
            _say(f"{len(stats)} of {len(shards)} shards done already; doing the rest")
        task = Task(explainer, request, listing.store, output, options.batch_size, overlays)
        _do_missing(listing, options.shard_size, stats, task, pools)
    finally:
        # After an error nobody needs what is still being fetched, and it may take minutes.
        pools.shutdown()
    in_order = [stats[number] for number in range(len(shards))]
    has_sheet = False
    started = time.monotonic()
    if any(each["detections"] for each in in_order):
        from jobs.contact_sheet import write_contact_sheet  # needs torch, which nothing above does

        has_sheet = write_contact_sheet(listing, output, len(shards), options.shard_size)
    mine["outputs"] = {"contact_sheet": has_sheet}
    mine = record.finished(mine, in_order, time.monotonic() - started)
    record.write_record(output, mine)
    return _summarise(mine, output)


def _do_missing(
    listing: Listing,
    shard_size: int,
    stats: dict[int, dict[str, Any]],
    task: Task,
    pools: Pools,
) -> None:
    """Runs the shards that have no stats yet, and adds theirs."""
    shards = listing.shards(shard_size)
    missing = [number for number in range(len(shards)) if number not in stats]
    # One stream over all shards: the next one's pictures are fetched while one is being finished.
    entries = (entry for number in missing for entry in shards[number])
    pictures = load_ahead(listing.store, entries, pools.transfer, task.batch_size)
    done = sum(len(shards[number]) for number in stats)
    with Progress(len(listing.entries), done) as progress:
        for number in missing:
            stats[number] = run_shard(number, shards[number], pictures, task, pools, progress.add)


def _overlays(asked: str, listing: Listing) -> str:
    if asked != "auto":
        return asked
    few = len(listing.entries) <= MOST_PICTURES_DRAWN_UNASKED
    return "each" if listing.local and few else "none"


def _summarise(found: Mapping[str, Any], output: Store) -> int:
    """Prints what was found and where it lies; returns the exit code."""
    counts, times = found["counts"], found["times"]
    pictures, boxes = counts["pictures"], counts["detections"]
    took = f"{times['seconds']:.1f} s ({speed(pictures, times['seconds'])})"
    categories = ", ".join(f"{name} {number}" for name, number in counts["categories"].items())
    print(f"{counted(pictures, 'picture')} in {took}, {counted(boxes, 'box', 'boxes')} explained.")
    if categories:
        print(f"  by category  {categories}")
    print(f"  the run      {output.uri}/{RECORD}")
    if found["outputs"]["contact_sheet"]:
        print(f"  first look   {output.uri}/{CONTACT_SHEET}")
    print(f"  tables       {output.uri}/shards/*/detections.parquet, heatmaps.npz beside each")
    if found["options"]["overlays"] != "none":
        print(f"  overlays     {output.uri}/shards/*/overlays/")
    if found["options"].get("save_raw"):
        print(f"  raw          {output.uri}/shards/*/raw/")
    if not counts["failures"]:
        return errors.DONE
    _say(
        f"{counts['failures']} of {counted(pictures, 'picture')} could not be done; why:"
        f" {output.uri}/shards/*/failures.parquet"
    )
    return errors.DONE_WITH_FAILURES


def _say(text: str) -> None:
    print(f"jobs: {text}", file=sys.stderr, flush=True)

"""A job from its listing to its summary: what is missing of it is handed to an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain
from typing import Any, Protocol

from archives.errors import ConflictError, MissingObjectError
from archives.stores.opening import open_store
from archives.stores.store import Store
from jobs import record
from jobs.dry_run import Trial, dry_run
from jobs.inputs.listing import Listing, list_input
from jobs.inputs.plan import Plan, changes, write_plan
from jobs.lease import LISTING, Lease, part_name
from jobs.names import CONTACT_SHEET, RECORD
from jobs.options import JobOptions
from jobs.progress import Progress
from jobs.record import InputFacts, Tally
from jobs.report import finish, summarise, summarise_part
from jobs.work_order import WorkOrder
from jobs.worker.commit import SHARDS, STATS, all_stats
from jobs.worker.messages import Advanced, Committed, Event, Job, Ready, ShardOrder

MOST_PICTURES_DRAWN_UNASKED = 100


class Engine(Trial, Protocol):
    """Has shards done, somewhere."""

    def ready(self) -> Ready:
        """Once the archive is loaded and the request is found to make sense, in a worker."""
        ...

    def events(self, job: Job, orders: Iterator[ShardOrder]) -> Iterator[Event]:
        """Has every shard done and committed; passes on Advanced and Committed."""
        ...

    def draw_sheet(self, job: Job) -> bool:
        """Has the contact sheet drawn where there is anything to draw; whether there was."""
        ...

    def end(self) -> None:
        """Ends the workers, if they have not ended."""
        ...


def run(order: WorkOrder, engine: Engine) -> int:
    """Does what is missing of a job; returns 0, or 3 if pictures failed.

    Raises ConflictError if the output belongs to another job or another run is at work there, or
    any other CommandError. What was committed before that stays, and the same call does the rest.
    """
    options = order.options
    assert isinstance(options, JobOptions)
    output = open_store(options.output)
    lease = Lease(output, part_name(options.shard))
    with ExitStack() as held:
        if options.shard is None:
            with list_input(options.inputs, options.output, options.manifest) as listing:
                request = engine.ready().request
                if options.dry_run:
                    return dry_run(options, listing, engine, output)
                held.enter_context(lease)
                before, mine = _begin(order, request, output, listing)
        else:
            request = engine.ready().request
            before, mine = _begin_part(order, request, output)
            held.enter_context(lease)
        held.callback(engine.end)  # whoever still commits does so under the lease
        job = Job(
            source=mine["input"]["root"],
            output=options.output,
            pictures=mine["counts"]["pictures"],
            shard_size=options.shard_size,
            overlays=mine["options"]["overlays"],
            lease=lease.key,
            token=lease.holder.token,
        )
        return _do(job, options, before, mine, engine, lease, output)


def _begin(
    order: WorkOrder, request: Mapping[str, Any], output: Store, listing: Listing | None
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The output's run.json as it was, and as it is now: of a new run, or of one taken up again."""
    options = order.options
    assert isinstance(options, JobOptions)
    before = record.read_record(output)
    if listing is not None:
        facts = InputFacts(listing.store.uri, listing.fingerprint, listing.count)
        overlays = _overlays(options, listing)
    else:
        assert before is not None  # another part has listed
        found = before["input"]
        named = [found["uris"], found["manifest"]] == [list(options.inputs), options.manifest]
        fingerprint = found["fingerprint"] if named else ""
        facts = InputFacts(found["root"], fingerprint, before["counts"]["pictures"])
        overlays = options.overlays
        if overlays == "auto":
            overlays = before["options"]["overlays"] if options.pictures else "none"
    shards = Plan(output, options.shard_size, facts.pictures).shards
    mine = record.new_record(order, request, overlays, facts, shards)
    if before is None:
        assert listing is not None
        _check_empty(output)
        write_plan(listing, output, options.shard_size)
    else:
        changed = partial(_changes, before, output, listing)
        record.check_same_job(before, mine, output.uri, changed)
        mine["times"]["started"] = before["times"]["started"]
        if before["execution"]["pictures"] and not options.pictures:
            before = _made_private(before, output)
    if listing is not None and (before is None or before["status"] != record.DONE):
        record.write_record(output, mine)  # after the plan, which it vouches for
    return before, mine


def _begin_part(
    order: WorkOrder, request: Mapping[str, Any], output: Store
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """As `_begin`; the first part to come lists, for all the others."""
    options = order.options
    assert isinstance(options, JobOptions)
    if record.read_record(output) is None:
        with Lease(output, LISTING, wait=True):
            if record.read_record(output) is None:
                with list_input(options.inputs, options.output, options.manifest) as listing:
                    return _begin(order, request, output, listing)
    return _begin(order, request, output, None)


def _made_private(before: Mapping[str, Any], output: Store) -> dict[str, Any]:
    """Removes the contact sheet; the output's run.json, which says so from now on. Overlays that
    were not asked for again make it another job, which was refused."""
    output.delete(CONTACT_SHEET)  # first: once run.json says so, nobody looks for it again
    after = {**before, "execution": {**before["execution"], "pictures": False}}
    if "outputs" in before:
        after["outputs"] = {**before["outputs"], "contact_sheet": False}
    record.write_record(output, after)
    print(
        f"Pictures are private now: {output.uri}/{CONTACT_SHEET} is gone; without them is the"
        f" report that this writes: python -m jobs report {output.uri}"
    )
    return after


def _changes(before: Mapping[str, Any], output: Store, listing: Listing | None) -> list[str]:
    if listing is None:
        found = before["input"]
        return [f"{', '.join(found['uris'])} with manifest {found['manifest']} was listed"]
    plan = Plan(output, before["options"]["shard_size"], before["counts"]["pictures"])
    return changes(listing, plan)


def _check_empty(output: Store) -> None:
    """Raises ConflictError if there are shards, which would be taken for this run's own."""
    with suppress(MissingObjectError):
        if any(entry.key.endswith(STATS) for entry in output.entries(SHARDS)):
            raise ConflictError(
                f"{output.uri}/{SHARDS} holds a run's shards, but its {RECORD} is gone;"
                " choose another output, or remove them"
            )


def _do(
    job: Job,
    options: JobOptions,
    before: Mapping[str, Any] | None,
    mine: dict[str, Any],
    engine: Engine,
    lease: Lease,
    output: Store,
) -> int:
    plan = Plan(output, job.shard_size, job.pictures)
    numbers = range(plan.shards)
    if options.shard is not None:
        index, count = options.shard
        # One stretch, so that a part reads few pieces of the plan and the store's load is spread.
        numbers = numbers[plan.shards * index // count : plan.shards * (index + 1) // count]
    pictures = sum(_pictures_in(number, plan) for number in numbers)
    tally = Tally()
    with Progress(pictures, 0) as progress:
        orders = _missing(numbers, plan, tally, progress)
        first = next(orders, None)
        if first is not None:
            if before is not None and before["status"] == record.DONE:
                record.write_record(output, mine)
            _follow(engine.events(job, chain([first], orders)), lease, tally, progress)
    if options.shard is not None:
        return summarise_part(options, output, tally)
    done = first is None and before is not None and before["status"] == record.DONE
    if done and before is not None and options.coco <= before["outputs"]["coco"]:
        print("This run is done already; nothing was explained again.")
        return summarise(before, output)
    sheet = options.pictures and bool(tally.counts()["detections"]) and engine.draw_sheet(job)
    lease.check()
    return finish(mine, output, tally, sheet, options.coco)


def _missing(
    numbers: Iterable[int], plan: Plan, tally: Tally, progress: Progress
) -> Iterator[ShardOrder]:
    """Orders for the shards that are not done; the others are counted."""
    for number, stats in all_stats(plan.output, numbers):
        if stats is None:
            yield ShardOrder(number)
        else:
            tally.add(stats)
            progress.skip(_pictures_in(number, plan))


def _follow(events: Iterable[Event], lease: Lease, tally: Tally, progress: Progress) -> None:
    for event in events:
        lease.check()
        if isinstance(event, Committed):
            tally.add(event.stats)
        elif isinstance(event, Advanced):
            if event.seconds:
                shares = event.loading / event.seconds, event.writing / event.seconds
                progress.waits(*shares, event.seconds)
            progress.add(event.pictures, event.failures)


def _pictures_in(number: int, plan: Plan) -> int:
    return min(plan.shard_size, plan.pictures - number * plan.shard_size)


def _overlays(options: JobOptions, listing: Listing) -> str:
    if options.overlays != "auto":
        return options.overlays
    few = listing.local and listing.count <= MOST_PICTURES_DRAWN_UNASKED
    return "each" if few and options.pictures else "none"

"""`python -m jobs status OUTPUT`: how far a run is, what it found, and what to do next."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from archives.errors import UsageError, shortened
from archives.stores.opening import open_store
from archives.stores.store import Store
from jobs import record
from jobs.errors import DONE
from jobs.lease import ALL, Holder, holders
from jobs.names import RECORD
from jobs.options import StatusOptions
from jobs.progress import counted, speed
from jobs.record import Tally
from jobs.worker.commit import all_stats

RUNNING, STOPPED, NOTHING = "running", "stopped", "nothing"
TOP = 10
MOST_RANGES_SHOWN = 12


@dataclass(frozen=True)
class Status:
    """What --json prints, too.

    state: "done"; "running": someone is at work; "stopped": not done, and nobody is.
    archive: name, version and digest. options: what decides the tables, as in run.json.
    shards_missing: their numbers as ranges, such as "3-7" and "12".
    categories: boxes of each of the most frequent, the most frequent first.
    seconds: of work, all workers' together; pictures_per_second: of such a second.
    started, finished: UTC, ISO 8601; runners: who, part, since. next: what to do.
    """

    output: str
    state: str
    archive: Mapping[str, str]
    options: Mapping[str, Any]
    shards: int
    shards_done: int
    shards_missing: list[str]
    pictures: int
    pictures_done: int
    failures: int
    detections: int
    categories: Mapping[str, int]
    seconds: float
    pictures_per_second: float | None
    started: str | None
    finished: str | None
    runners: list[Mapping[str, str]]
    next: str


def status(options: StatusOptions) -> int:
    """Prints the status of the run below an output; returns 0.

    Raises UsageError if there is none, or any other CommandError.
    """
    output = open_store(options.output)
    found = record.read_record(output)
    if found is None:
        if options.json:
            print(json.dumps({"output": output.uri, "state": NOTHING}))
        raise UsageError(
            f"there is no run at {shortened(output.uri)}: it holds no {RECORD}; expected what"
            " `python -m jobs explain` was given as --output"
        )
    current = status_of(output, found)
    print(json.dumps(asdict(current), indent=1) if options.json else text(current))
    return DONE


def status_of(output: Store, found: Mapping[str, Any]) -> Status:
    """The status of the run whose run.json says `found`."""
    times, shards = found["times"], found["counts"]["shards"]
    if found["status"] == record.DONE:
        state, counts, seconds = record.DONE, found["counts"], times["seconds"]
        runners, missing = list[Holder](), list[tuple[int, int]]()
    else:
        tally, missing = added_up(output, shards)
        counts, seconds = tally.counts(), tally.seconds
        runners = [each for each in holders(output) if not each.is_dead()]
        state = RUNNING if runners else STOPPED
    left = shards - counts["shards"]
    return Status(
        output=output.uri,
        state=state,
        archive={name: found["archive"][name] for name in ("name", "version", "digest")},
        options=found["options"],
        shards=shards,
        shards_done=counts["shards"],
        shards_missing=[
            f"{first}-{last}" if first < last else f"{first}" for first, last in missing
        ],
        pictures=found["counts"]["pictures"],
        pictures_done=counts["pictures"],
        failures=counts["failures"],
        detections=counts["detections"],
        categories=dict(Counter(counts["categories"]).most_common(TOP)),
        seconds=round(seconds, 3),
        pictures_per_second=round(counts["pictures"] / seconds, 3) if seconds else None,
        started=times.get("started"),
        finished=times.get("finished"),
        runners=[{"who": each.who, "part": each.part, "since": each.since} for each in runners],
        next=_next(output.uri, state, left, counts["failures"]),
    )


def added_up(output: Store, shards: int) -> tuple[Tally, list[tuple[int, int]]]:
    """What is done, and of each range of shards that is not the first and last number."""
    tally, missing = Tally(), list[tuple[int, int]]()
    for number, stats in all_stats(output, range(shards)):
        if stats is not None:
            tally.add(stats)
        elif missing and missing[-1][1] == number - 1:
            missing[-1] = (missing[-1][0], number)
        else:
            missing.append((number, number))
    return tally, missing


def _next(uri: str, state: str, shards_left: int, failures: int) -> str:
    if state == record.DONE:
        if failures:
            return f"why pictures failed: {uri}/shards/*/failures.parquet"
        return f"the tables: {uri}/shards/*/detections.parquet"
    if state == RUNNING:
        return (
            "wait; a runner of another machine that was killed is listed, too, until it is missed"
        )
    if not shards_left:
        return f"python -m jobs report {uri}, which merges what the shards left"
    left = counted(shards_left, "missing shard")
    return f"run the same command again: it does only the {left}"


def text(current: Status) -> str:
    """A status for people."""
    archive, options = current.archive, current.options
    lines = [
        f"{current.output}: {current.state}",
        f"  archive    {archive['name']} {archive['version']}, sha256 {archive['digest']}",
        f"  explained  {_asked(options)}",
        f"  shards     {current.shards_done:,} of {current.shards:,} done{_missing(current)}",
        f"  pictures   {current.pictures_done:,} of {current.pictures:,} done,"
        f" {current.failures:,} failed",
        f"  boxes      {current.detections:,}{_categories(current.categories)}",
        f"  time       {_times(current)}",
    ]
    for each in current.runners:
        part = "all" if each["part"] == ALL else each["part"]
        lines.append(f"  at work    {each['who']}, on {part}, since {each['since']}")
    return "\n".join([*lines, f"  next       {current.next}"])


def _asked(options: Mapping[str, Any]) -> str:
    """The options that are not what they would be by themselves, and the method."""
    shown = ("method", "target", "layer")
    first = [f"{name} {options[name]}" for name in shown if options.get(name) is not None]
    others = [
        f"{name} {value}"
        for name, value in options.items()
        if name not in shown and value not in (None, False, 0, [])
    ]
    return ", ".join(first + others)


def _missing(current: Status) -> str:
    ranges = current.shards_missing
    if not ranges:
        return ""
    more = len(ranges) - MOST_RANGES_SHOWN
    return f"; missing: {', '.join(ranges[:MOST_RANGES_SHOWN])}" + f" and {more:,} more" * (
        more > 0
    )


def _categories(categories: Mapping[str, int]) -> str:
    if not categories:
        return ""
    return ": " + ", ".join(f"{name} {number:,}" for name, number in categories.items())


def _times(current: Status) -> str:
    parts = [f"started {current.started}"]
    if current.finished:
        parts.append(f"finished {current.finished}")
    if current.pictures_done:
        how_fast = speed(current.pictures_done, current.seconds)
        parts.append(f"{current.seconds:,.1f} s of work ({how_fast})")
    return ", ".join(parts)

"""run.json: what a job is, what it found, and whether another command means the same job."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from archives.errors import ConflictError, MissingObjectError
from archives.stores.store import Store
from jobs.names import RECORD
from jobs.options import BATCH_SIZE, JobOptions
from jobs.work_order import WorkOrder

SCHEMA_VERSION = 3
RUNNING = "running"
DONE = "done"


@dataclass(frozen=True)
class InputFacts:
    """What a job reads. root: of the pictures' keys. fingerprint: over keys, sizes and tags."""

    root: str
    fingerprint: str
    pictures: int


def new_record(
    order: WorkOrder, request: Mapping[str, Any], overlays: str, facts: InputFacts, shards: int
) -> dict[str, Any]:
    """The run.json of a job (its order's options are JobOptions) that starts now.

    `options` decide what the tables hold; `execution` only how they are made, and may differ
    when a run is taken up again.
    """
    options = order.options
    assert isinstance(options, JobOptions)
    return {
        "schema_version": SCHEMA_VERSION,
        "status": RUNNING,
        "archive": {**asdict(order.archive), "uri": options.archive},
        "options": {
            **request,
            "precision": options.precision,
            "shard_size": options.shard_size,
            "overlays": overlays,
        },
        "execution": {
            "engine": options.engine,
            "device": options.device,
            "batch_size": options.batch_size or BATCH_SIZE,
            "pictures": options.pictures,
        },
        "input": {
            "uris": list(options.inputs),
            "manifest": options.manifest,
            "root": facts.root,
            "fingerprint": facts.fingerprint,
        },
        "counts": {"pictures": facts.pictures, "shards": shards},
        "times": {"started": now()},
    }


def read_record(output: Store) -> dict[str, Any] | None:
    """The output's run.json, or None. Raises ConflictError if it is none of this version's."""
    try:
        data = output.read(RECORD)
    except MissingObjectError:
        return None
    try:
        record = json.loads(data)
    except ValueError as error:
        raise ConflictError(
            f"{output.uri}/{RECORD} is not JSON ({error}); choose another output or remove it"
        ) from error
    found = record.get("schema_version") if isinstance(record, dict) else None
    if found != SCHEMA_VERSION:
        raise ConflictError(
            f"{output.uri}/{RECORD} has schema_version {found!r}, expected {SCHEMA_VERSION};"
            " choose another output"
        )
    return dict(record)


def write_record(output: Store, record: Mapping[str, Any]) -> None:
    """Replaces the output's run.json; raises StoreRefusedError if it cannot be written."""
    output.write(RECORD, json.dumps(record, indent=1).encode() + b"\n")


def check_same_job(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    place: str,
    changes_of_input: Callable[[], Sequence[str]] = tuple,
) -> None:
    """Raises ConflictError, naming what changed, unless both records describe one job.

    changes_of_input: asked for the names where the input is not the same.
    """
    changes = _differences("archive ", before["archive"], after["archive"], ["digest"])
    changes += _differences(
        "", before["options"], after["options"], before["options"].keys() | after["options"].keys()
    )
    if before["input"]["fingerprint"] != after["input"]["fingerprint"]:
        changes.append("the input is another: " + (", ".join(changes_of_input()) or "its root"))
    if changes:
        raise ConflictError(
            f"{place} holds another run: {'; '.join(changes)}. Choose another output, or run the"
            " command it was made with; nothing was changed"
        )


class Tally:
    """The sums of shards' stats, of which none is kept.

    seconds: how long workers explained, over all attempts that committed.
    """

    def __init__(self) -> None:
        self.shards = 0
        self.seconds = 0.0
        self._counts: Counter[str] = Counter(
            pictures=0, pictures_with_detections=0, detections=0, failures=0
        )
        self._categories: Counter[str] = Counter()

    def add(self, stats: Mapping[str, Any]) -> None:
        """A committed shard's."""
        self.shards += 1
        self.seconds += stats["seconds"]
        self._categories.update(stats["categories"])
        for name in self._counts:
            self._counts[name] += stats[name]

    def counts(self) -> dict[str, Any]:
        """As run.json has them."""
        return {
            **self._counts,
            "shards": self.shards,
            "categories": dict(self._categories.most_common()),
        }


def finished(record: Mapping[str, Any], tally: Tally) -> dict[str, Any]:
    """The record of a run whose shards are all done, with their counts; when it ended stays as it
    is where the record has it."""
    seconds = tally.seconds
    counts = tally.counts()
    return {
        **record,
        "status": DONE,
        "counts": counts,
        "times": {
            **record["times"],
            "finished": record["times"].get("finished") or now(),
            "seconds": round(seconds, 3),
            "pictures_per_second": round(counts["pictures"] / seconds, 3) if seconds else None,
        },
    }


def now() -> str:
    """The time in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _differences(
    prefix: str, before: Mapping[str, Any], after: Mapping[str, Any], names: Any
) -> list[str]:
    return [
        f"{prefix}{name} was {before.get(name)!r}, now {after.get(name)!r}"
        for name in sorted(names)
        if before.get(name) != after.get(name)
    ]

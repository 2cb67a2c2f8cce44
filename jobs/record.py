"""run.json: what a job is, what it found, and whether another command means the same job."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobs.errors import ConflictError, MissingObjectError
from jobs.listing import Listing
from jobs.names import RECORD
from jobs.options import JobOptions, WorkOrder
from jobs.store import Store

if TYPE_CHECKING:
    from handlers.schema import ExplainRequest

SCHEMA_VERSION = 2
RUNNING = "running"
DONE = "done"


def new_record(
    order: WorkOrder, request: ExplainRequest, overlays: str, listing: Listing, shards: int
) -> dict[str, Any]:
    """The run.json of a job (its order's options are JobOptions) that starts now.

    `options` decide what the tables hold; `execution` only how they are made, and may differ
    when a run is taken up again.
    """
    options = order.options
    assert isinstance(options, JobOptions)
    asked = asdict(request).items()
    return {
        "schema_version": SCHEMA_VERSION,
        "status": RUNNING,
        "archive": {**asdict(order.archive), "uri": options.archive},
        "options": {
            # As JSON gives them back: a later run's are compared with these.
            **{name: list(each) if isinstance(each, tuple) else each for name, each in asked},
            "precision": options.precision,
            "shard_size": options.shard_size,
            "overlays": overlays,
        },
        "execution": {
            "engine": options.engine,
            "device": options.device,
            "batch_size": options.batch_size,
        },
        "input": {
            "uris": list(options.inputs),
            "root": listing.store.uri,
            "fingerprint": listing.fingerprint(),
        },
        "counts": {"pictures": len(listing.entries), "shards": shards},
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


def check_same_job(before: Mapping[str, Any], after: Mapping[str, Any], place: str) -> None:
    """Raises ConflictError, naming what changed, unless both records describe one job."""
    changes = _differences("archive ", before["archive"], after["archive"], ["digest"])
    changes += _differences(
        "", before["options"], after["options"], before["options"].keys() | after["options"].keys()
    )
    changes += _differences("input ", before["input"], after["input"], ["fingerprint"])
    if before["input"]["fingerprint"] != after["input"]["fingerprint"]:
        changes += _differences("", before["counts"], after["counts"], ["pictures"])
    if changes:
        raise ConflictError(
            f"{place} holds another run: {'; '.join(changes)}. Choose another output, or run the"
            " command it was made with; nothing was changed"
        )


def finished(
    record: Mapping[str, Any], stats: Sequence[Mapping[str, Any]], sheet_seconds: float
) -> dict[str, Any]:
    """The record of a run whose shards are all done, with their counts.

    `seconds` sums the shards' times, over all attempts that committed one, and the contact
    sheet's.
    """
    counts: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    for each in stats:
        categories.update(each["categories"])
        for name in ("pictures", "pictures_with_detections", "detections", "failures"):
            counts[name] += each[name]
    seconds = sum(each["seconds"] for each in stats) + sheet_seconds
    return {
        **record,
        "status": DONE,
        "counts": {
            **counts,
            "shards": len(stats),
            "categories": dict(categories.most_common()),
        },
        "times": {
            **record["times"],
            "finished": now(),
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

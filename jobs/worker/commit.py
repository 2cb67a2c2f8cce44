"""What is kept of a shard: its tables, and stats.json, whose existence means that it is done."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeGuard

from archives.errors import ConflictError, MissingObjectError
from archives.stores.store import CONNECTIONS, Entry, Store
from jobs.names import encoded, file_name, printable
from jobs.tables import DETECTIONS, FAILURES, npz_bytes, parquet_bytes

if TYPE_CHECKING:
    from jobs.worker.outcome import Done
    from jobs.worker.pictures import Failure

SHARDS = "shards/"
STATS = "stats.json"
AHEAD = 4 * CONNECTIONS  # stats that are asked for, or held, at once


def folder(number: int) -> str:
    """Where shard `number` lies below the output."""
    return f"{SHARDS}{number:05d}/"


def commit(
    number: int,
    entries: Sequence[Entry],
    outcomes: Sequence[Done | Failure],
    seconds: float,
    output: Store,
    pool: ThreadPoolExecutor,
    may_write: Callable[[], None],
) -> dict[str, Any]:
    """Writes the tables beside each other, then stats.json; returns what that holds.

    outcomes: one for each entry, in their order. may_write raises ConflictError where another run
    has taken over.
    """
    failures = [asdict(each) for each in outcomes if not _is_done(each)]
    done = [each for each in outcomes if _is_done(each)]
    rows = [row for each in done for row in each.rows]
    maps = {name: array for each in done for name, array in each.maps.items()}
    boxes = {(row["key"], row["index"]): row["category"] for row in rows}
    tables = {
        "heatmaps.npz": npz_bytes(maps),
        "detections.parquet": parquet_bytes(rows, DETECTIONS),
        "failures.parquet": parquet_bytes(failures, FAILURES),
    }
    stats = {
        "shard": number,
        "pictures": len(entries),
        "pictures_with_detections": sum(bool(each.rows) for each in done),
        "detections": len(boxes),
        "failures": len(failures),
        "categories": dict(Counter(boxes.values()).most_common()),
        "seconds": round(seconds, 3),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in tables.items()},
        "shortened_names": {
            file_name(entry.key): printable(entry.key)
            for entry in entries
            if file_name(entry.key) != encoded(entry.key)
        },
    }
    where = folder(number)
    may_write()
    writes = [pool.submit(output.write, where + name, data) for name, data in tables.items()]
    for write in writes:
        write.result()
    output.write(where + STATS, json.dumps(stats, indent=1).encode() + b"\n")
    return stats


def _is_done(each: Done | Failure) -> TypeGuard[Done]:
    return hasattr(each, "rows")


def read_stats(output: Store, number: int) -> dict[str, Any] | None:
    """A shard's stats.json, or None: it is not done. Raises ConflictError if it is no JSON."""
    path = folder(number) + STATS
    try:
        stats: dict[str, Any] = json.loads(output.read(path))
    except MissingObjectError:
        return None
    except ValueError as error:
        raise ConflictError(
            f"{output.uri}/{path} is not JSON ({error}): no run wrote it; remove it, and the shard"
            " is done again"
        ) from error
    return stats


def all_stats(output: Store, numbers: Iterable[int]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The stats of each shard, or None, in order; read side by side, few of them ahead."""
    with ThreadPoolExecutor(CONNECTIONS, "stats") as pool:
        waiting: deque[tuple[int, Future[dict[str, Any] | None]]] = deque()
        left = iter(numbers)
        try:
            while True:
                for number in islice(left, AHEAD - len(waiting)):
                    waiting.append((number, pool.submit(read_stats, output, number)))
                if not waiting:
                    return
                number, found = waiting.popleft()
                yield number, found.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_table(output: Store, stats: dict[str, Any], name: str) -> bytes:
    """A committed shard's table. Raises ConflictError if it is not the one that was committed."""
    path = folder(stats["shard"]) + name
    data = output.read(path)
    found = hashlib.sha256(data).hexdigest()
    if found != stats["sha256"][name]:
        raise ConflictError(
            f"{output.uri}/{path} is not what its {STATS} says was committed (sha256"
            f" {stats['sha256'][name][:12]}..., found {found[:12]}...): two runs have written here;"
            f" remove {folder(stats['shard'])}{STATS} and run the job again"
        )
    return data

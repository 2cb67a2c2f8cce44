"""Which days' runs there are, and how old ones go."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from archives.errors import CommandError, DeniedObjectError, MissingObjectError
from archives.stores.folder import FolderStore
from archives.stores.opening import open_root, open_store, split_uri
from archives.stores.store import CONNECTIONS, Store
from jobs import record
from jobs.audit.plan import DATE, dated
from jobs.evaluation.thresholds import REPORT as AUDIT_REPORT
from jobs.lease import ALL, AUDIT, Lease
from jobs.names import RECORD

# How many days back runs are looked for: a bucket cannot list its folders without their contents.
LONGEST = 400
AT_ONCE = 1000


@dataclass(frozen=True)
class DaysRun:
    """A finished run of a day."""

    day: date
    place: str


def days_runs(output: str, before: date, days: int = LONGEST) -> list[DaysRun]:
    """The finished runs of the `days` before a day, the oldest first.

    output: with "{date}"; without it there are none.
    """
    if DATE not in output:
        return []
    root, _ = split_uri(output)
    store = open_root(root)  # one for all: each client of a bucket takes half a second
    every = [before - timedelta(days=number) for number in range(days, 0, -1)]
    with ThreadPoolExecutor(CONNECTIONS, "runs") as pool:
        found = pool.map(lambda day: _is_finished(store, dated(output, day)), every)
        return [
            DaysRun(day, dated(output, day))
            for day, finished in zip(every, found, strict=True)
            if finished
        ]


def _is_finished(store: Store, place: str) -> bool:
    found = _read(store, place, RECORD)
    return isinstance(found, dict) and found.get("status") == record.DONE


def remove_old(output: str, today: date, keep: int) -> Iterator[tuple[DaysRun, str]]:
    """Removes the runs that are older than `keep` days, each with what is below it; yields each,
    and why it was left if it was.

    Only what is a finished run of a day that `output` names; one at which somebody is at work, or
    that the store does not let go, is left. So is the last one up to today that passed its audit,
    however old, and nothing is said.
    """
    runs = days_runs(output, today + timedelta(days=1), keep + LONGEST)
    good = _last_good(output, runs)
    for run in runs:
        if run == good or run.day >= today - timedelta(days=keep):
            continue
        store = open_store(run.place)
        try:
            with Lease(store, AUDIT) as whole, Lease(store, ALL) as lease:
                _remove(store, whole, lease)
        except CommandError as error:
            yield run, str(error)
            continue
        with suppress(MissingObjectError):
            _empty(store)
        yield run, ""


def _last_good(output: str, runs: Sequence[DaysRun]) -> DaysRun | None:
    """The last run whose audit.json says that it passed."""
    root, _ = split_uri(output)
    store = open_root(root)
    return next((run for run in reversed(runs) if _has_passed(store, run.place)), None)


def _has_passed(store: Store, place: str) -> bool:
    found = _read(store, place, AUDIT_REPORT)
    return isinstance(found, dict) and found.get("passed") is True


def _read(store: Store, place: str, name: str) -> Any:
    """A JSON file of a run; None where there is none."""
    _, path = split_uri(place)
    try:
        return json.loads(store.read(f"{path.rstrip('/')}/{name}"))
    except (MissingObjectError, DeniedObjectError, ValueError):
        return None


def _remove(store: Store, *leases: Lease) -> None:
    """All but run.json, and that last: a removal that broke off is found and finished."""
    kept = (RECORD, *(each.key for each in leases))
    keys = (each.key for each in store.entries() if each.key not in kept)
    with ThreadPoolExecutor(CONNECTIONS, "remove") as pool:
        while some := list(islice(keys, AT_ONCE)):
            for each in leases:
                each.check()
            list(pool.map(store.delete, some))
    store.delete(RECORD)


def _empty(store: Store) -> None:
    """Folders that hold nothing any more."""
    if not isinstance(store, FolderStore):
        return
    for folder, _, _ in os.walk(store.root, topdown=False):
        with suppress(OSError):  # one that somebody has put something into
            Path(folder).rmdir()

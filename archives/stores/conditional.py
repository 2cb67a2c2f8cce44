"""Changing an object that others may change, too: one of them wins, where the store can tell."""

from __future__ import annotations

from typing import NamedTuple

from archives.errors import MissingObjectError, NotPromisedError
from archives.stores.store import Store

PROBE = ".whybox-probe"
NO_TAG = 32 * "0"


class Written(NamedTuple):
    """won: False if another changed it first, and nothing was written. promised: whether the store
    makes sure of that; if not, another's change may have been written over."""

    won: bool
    promised: bool


def promises(store: Store) -> bool:
    """Whether the store writes on a condition: one that knows none says so (OpenStack Swift), or
    passes over it, and then writes what it must not."""
    try:
        if not store.replace(PROBE, b"", NO_TAG):
            return True
    except NotPromisedError:
        return False
    store.delete(PROBE)
    return False


def change(store: Store, key: str, data: bytes, tag: str | None) -> Written:
    """Writes `data` if the object is still the one with `tag`, None for none: by a condition where
    `promises(store)`, else after looking."""
    if promises(store):
        try:
            won = store.create(key, data) if tag is None else store.replace(key, data, tag)
            return Written(won, True)
        except NotPromisedError:
            pass  # a file system without locks, which the probe did not need
    try:
        current = store.read_tagged(key)[1]
    except MissingObjectError:
        current = None
    if current != tag:
        return Written(False, False)
    store.write(key, data)
    return Written(store.read(key) == data, False)

"""Pictures on their way in: fetched and decoded ahead of the detector, a bounded number of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from archives.errors import DeniedObjectError, MissingObjectError, one_line
from archives.stores.store import Entry, S3Settings, Store
from handlers.images import decode_picture
from jobs.names import printable

if TYPE_CHECKING:
    from torch import Tensor

# Entered around what may end the process: told the stage, it says which picture is in hand.
Watch: TypeAlias = Callable[[str], AbstractContextManager[None]]


def unwatched(stage: str) -> AbstractContextManager[None]:
    """Says nothing to anybody."""
    return nullcontext()


@dataclass(frozen=True)
class Pools:
    """The threads of a job.

    transfer: fetch and upload, as many at once as the store has connections.
    drawing: measure and draw; that keeps a core busy, so no more at once than there are cores.
    commit: shards, one after the other.
    """

    transfer: ThreadPoolExecutor
    drawing: ThreadPoolExecutor
    commit: ThreadPoolExecutor

    @classmethod
    def start(cls) -> Pools:
        return cls(
            ThreadPoolExecutor(threads(), "transfer"),
            ThreadPoolExecutor(cores(), "drawing"),
            ThreadPoolExecutor(1, "commit"),
        )

    def shutdown(self) -> None:
        """Drops what has not begun, and waits for nothing."""
        for pool in (self.transfer, self.drawing, self.commit):
            pool.shutdown(wait=False, cancel_futures=True)


def threads() -> int:
    """How many fetches (with decoding) and uploads run at once; WHYBOX_S3_CONNECTIONS sets it."""
    return S3Settings.from_environment().connections


def cores() -> int:
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Picture:
    """A decoded picture: uint8 RGB [3, H, W]."""

    key: str
    pixels: Tensor = field(repr=False)


@dataclass(frozen=True)
class Failure:
    """A picture that could not be done; stage: fetch, decode, explain or render."""

    key: str
    stage: str
    error: str
    message: str

    @classmethod
    def of(cls, key: str, stage: str, error: Exception) -> Failure:
        return cls(printable(key), stage, type(error).__name__, one_line(error))


def load_ahead(
    source: Store, entries: Iterable[Entry], pool: ThreadPoolExecutor, batch_size: int
) -> Iterator[Picture | Failure]:
    """The entries in their order, decoded; a few batches, not more, are fetched ahead."""
    ahead = how_far_ahead(batch_size)
    waiting: deque[Future[Picture | Failure]] = deque()
    for entry in entries:
        waiting.append(pool.submit(load, source, entry.key))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def how_far_ahead(batch_size: int) -> int:
    """How many pictures are fetched before they are asked for."""
    return max(threads(), 2 * batch_size)


def load(source: Store, key: str, watch: Watch = unwatched) -> Picture | Failure:
    """One picture. Raises StoreDownError and StoreRefusedError: these are no picture's fault."""
    try:
        data = source.read(key)
    except (MissingObjectError, DeniedObjectError) as error:
        return Failure.of(key, "fetch", error)
    with watch("decode"):
        try:
            return Picture(key, decode_picture(data))
        except Exception as error:  # a decoder's bug, too, concerns this picture alone
            return Failure.of(key, "decode", error)

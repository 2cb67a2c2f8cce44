"""Shards on their way in: a thread takes orders and fetches pictures ahead of the detector."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Full, Queue
from typing import Any, TypeAlias

from archives.stores.store import Entry, Store
from jobs.inputs.plan import Plan
from jobs.names import printable
from jobs.worker.clock import Clock
from jobs.worker.messages import Blame, ShardOrder
from jobs.worker.pictures import Failure, Picture, Watch, how_far_ahead, load

SECONDS_BETWEEN_LOOKS = 0.2  # of a loader that waits for room, whether it is still wanted

Loaded: TypeAlias = tuple[int, Picture | Failure]  # with its place in the shard


@dataclass(frozen=True)
class Shard:
    """A shard in hand; pictures: those that are not done alone, decoded ahead, in their order."""

    order: ShardOrder
    entries: Sequence[Entry] = field(repr=False)
    pictures: Iterator[Loaded] = field(repr=False)

    @property
    def number(self) -> int:
        return self.order.number

    def blamed(self) -> dict[int, Failure]:
        """The rows of pictures that ended their process, by place."""
        return {
            each.place: _blamed(self.entries[each.place].key, each) for each in self.order.blamed
        }


def _blamed(key: str, blame: Blame) -> Failure:
    message = f"it ended the process twice ({blame.signal}), once with nothing else in hand"
    return Failure(printable(key), blame.stage, blame.signal, message)


@dataclass(frozen=True)
class Source:
    """Where pictures come from; watch: by shard and place, as for `jobs.worker.pictures.load`."""

    plan: Plan
    store: Store
    pool: ThreadPoolExecutor
    batch_size: int
    watch: Callable[[int, int], Watch]


_Begin: TypeAlias = tuple[ShardOrder, Sequence[Entry]]
_Loading: TypeAlias = tuple[int, Future[Picture | Failure]]


class Loader:
    """Fetches and decodes shard after shard, a bounded number of pictures ahead."""

    def __init__(self, orders: Iterable[ShardOrder], source: Source) -> None:
        self._orders, self._source = orders, source
        self._queue: Queue[Any] = Queue(how_far_ahead(source.batch_size))
        self._error: BaseException | None = None
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)

    def __enter__(self) -> Loader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._unwanted.set()

    def end_with(self, error: BaseException) -> None:
        """Raises `error` where the next shard or picture is asked for: none may ever come."""
        self._error = error
        with suppress(Full):  # then nobody waits
            self._queue.put_nowait(error)

    def shards(self, clock: Clock) -> Iterator[Shard]:
        """Each order's shard; its pictures are to be taken before the next.

        Raises what a fetch, the plan or the orders raised.
        """
        while True:
            begin: _Begin | None = self._next()
            if begin is None:
                return
            order, entries = begin
            yield Shard(order, entries, self._pictures(len(_usual(order, entries)), clock))

    def _pictures(self, count: int, clock: Clock) -> Iterator[Loaded]:
        for _ in range(count):
            with clock.loading():
                loading: _Loading = self._next()
                picture = loading[1].result()
            yield loading[0], picture

    def _next(self) -> Any:
        queued = self._error or self._queue.get()
        if isinstance(queued, BaseException):
            raise queued
        return queued

    def _run(self) -> None:
        source = self._source
        try:
            for order in self._orders:
                entries = source.plan.entries(order.number)
                self._put((order, entries))
                for place in _usual(order, entries):
                    if self._unwanted.is_set():
                        return
                    watch = source.watch(order.number, place)
                    loading = source.pool.submit(load, source.store, entries[place].key, watch)
                    self._put((place, loading))
            self._put(None)
        except BaseException as error:  # it is the consumer's to raise
            self._put(error)

    def _put(self, each: _Begin | _Loading | BaseException | None) -> None:
        while not self._unwanted.is_set():
            try:
                self._queue.put(each, timeout=SECONDS_BETWEEN_LOOKS)
            except Full:
                continue
            return


def _usual(order: ShardOrder, entries: Sequence[Entry]) -> list[int]:
    """Places of pictures that are neither done alone nor blamed."""
    apart = {*order.alone, *(each.place for each in order.blamed)}
    return [place for place in range(len(entries)) if place not in apart]

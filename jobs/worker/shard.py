"""The shard function: pictures in, committed tables out, fetching, explaining and writing at once.

A bad picture is a row, never the end. While one shard is explained the next one's pictures are
fetched and the last one is committed; every queue in between is bounded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from archives.errors import UsageError, one_line
from archives.stores.store import Store
from handlers.schema import RequestError
from jobs.errors import DeviceLostError
from jobs.inputs.plan import Plan
from jobs.options import BATCH_SIZE, at_a_time
from jobs.worker.clock import Clock
from jobs.worker.commit import commit, folder
from jobs.worker.loading import Loaded, Loader, Shard, Source
from jobs.worker.messages import Begun, Committed, Ended, Event, ShardOrder
from jobs.worker.outcome import Done, outcome
from jobs.worker.pictures import Failure, Picture, Pools, Watch, load

if TYPE_CHECKING:
    from handlers.explainer import Explainer
    from handlers.schema import ExplainRequest, Explanation

# Pictures handed to the explainer at once, in batches: it can only batch those of one padded size.
BATCHES_AT_ONCE = 4
# Bytes of pixels after which a window closes earlier: 12 pictures of 12 megapixels.
WINDOW_BYTES = 2**29
SHARDS_IN_COMMIT = 2

Tell: TypeAlias = Callable[[Event], None]
Result: TypeAlias = tuple[Picture, "list[Explanation]"] | Failure
# A picture's outcome, and its files on their way out.
Finishing: TypeAlias = tuple[int, Done | Failure, list[Future[None]]]
Waiting: TypeAlias = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Task:
    """What shards are done with and where they go.

    batch_size: as for JobOptions. overlays: "none", "all" or "each". may_write: raises
    ConflictError where another run has taken over. tell: takes events, from any thread.
    """

    explainer: Explainer
    request: ExplainRequest
    source: Store
    output: Store
    batch_size: int | None
    overlays: str
    tell: Tell
    may_write: Callable[[], None] = lambda: None

    @property
    def at_once(self) -> int:
        """Pictures in one pass of the detector."""
        return self.batch_size or BATCH_SIZE

    def watch(self, number: int, place: int) -> Watch:
        """Tells when the picture is in hand and when no longer."""

        @contextmanager
        def watching(stage: str) -> Iterator[None]:
            self.tell(Begun(number, place, stage))
            try:
                yield
            finally:
                self.tell(Ended(number, place))

        return watching


def explain_shards(orders: Iterable[ShardOrder], plan: Plan, task: Task, pools: Pools) -> None:
    """Does and commits one shard after the other, in their order; tells what happens.

    Raises UsageError for a request that cannot be served, StoreError, DeviceLostError,
    ConflictError.
    """
    clock = Clock()
    commits: deque[Future[None]] = deque()
    source = Source(plan, task.source, pools.transfer, task.at_once, task.watch)
    with Loader(orders, source) as loader:
        for shard in loader.shards(clock):
            _settle(commits, 0 if shard.order.alone else SHARDS_IN_COMMIT - 1, clock)
            commits.append(_explain_shard(shard, task, pools, clock))
            # A shard that fails may be the last for ever, so nothing may wait for another.
            commits[-1].add_done_callback(partial(_raise_in, loader))
        _settle(commits, 0, clock)


def _raise_in(loader: Loader, done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()):
        loader.end_with(error)


def _settle(commits: deque[Future[None]], left: int, clock: Clock) -> None:
    """Waits until no more than `left` are being committed, and raises what any of them raised."""
    while len(commits) > left or (commits and commits[0].done()):
        with clock.writing():
            commits.popleft().result()


def _explain_shard(shard: Shard, task: Task, pools: Pools, clock: Clock) -> Future[None]:
    """Explains a shard; what is returned is done once it is committed."""
    started = time.monotonic()
    outcomes: dict[int, Done | Failure] = {**shard.blamed()}
    task.tell(clock.advanced(len(outcomes), len(outcomes)))
    finishing: deque[Future[Finishing]] = deque()

    def begin(window: Sequence[Loaded]) -> None:
        for place, result in explain_window(window, shard.number, task):
            finishing.append(
                pools.drawing.submit(_finish, shard.number, place, result, task, pools)
            )

    def collect(left: int, waiting: Waiting = clock.writing) -> None:
        new = {}
        while len(finishing) > left:
            with waiting():
                place, result, uploads = finishing.popleft().result()
                for upload in uploads:
                    upload.result()
            new[place] = result
        outcomes.update(new)
        failures = sum(isinstance(each, Failure) for each in new.values())
        task.tell(clock.advanced(len(new), failures))

    for window in windows(shard.pictures, BATCHES_AT_ONCE * task.at_once):
        begin(window)
        collect(left=len(window))  # all but this window, which is finished beside the next
    for place in shard.order.alone:
        collect(left=0)
        watch = task.watch(shard.number, place)
        begin([(place, load(task.source, shard.entries[place].key, watch))])
    seconds = time.monotonic() - started

    def finish() -> None:
        collect(left=0, waiting=nullcontext)
        in_order = [outcomes[place] for place in range(len(shard.entries))]
        stats = commit(
            *(shard.number, shard.entries, in_order, seconds),
            *(task.output, pools.transfer, task.may_write),
        )
        task.tell(Committed(stats))

    return pools.commit.submit(finish)


def windows(pictures: Iterable[Loaded], most: int) -> Iterator[list[Loaded]]:
    """`most` pictures at once, or fewer where these are large: the same ones for the same shard."""
    window: list[Loaded] = []
    size = 0
    for place, each in pictures:
        window.append((place, each))
        size += each.pixels.nbytes if isinstance(each, Picture) else 0
        if len(window) == most or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def explain_window(window: Sequence[Loaded], number: int, task: Task) -> list[tuple[int, Result]]:
    """The window's outcomes in its order; if a picture breaks its batch, all are done singly."""
    pictures = [(place, each) for place, each in window if isinstance(each, Picture)]
    try:
        found = dict(zip([p for p, _ in pictures], _call(pictures, number, task), strict=True))
    except Exception as error:  # whose fault it is shows below, one by one
        check_whose(error)
        return [
            (place, each if isinstance(each, Failure) else _explain_one(place, each, number, task))
            for place, each in window
        ]
    return [
        (place, each if isinstance(each, Failure) else (each, found[place]))
        for place, each in window
    ]


def _explain_one(place: int, picture: Picture, number: int, task: Task) -> Result:
    try:
        return picture, _call([(place, picture)], number, task)[0]
    except Exception as error:  # anything a detector raises for a picture is that picture's row
        check_whose(error)
        return Failure.of(picture.key, "explain", error)


def check_whose(error: Exception) -> None:
    """Raises what is no picture's fault.

    A lost GPU, and a request that cannot be served, would fail every picture that follows, and
    commit all of them as failures.
    """
    if isinstance(error, RequestError):
        raise UsageError(one_line(error)) from error
    if type(error).__name__ == "AcceleratorError":  # torch's; an OutOfMemoryError is another
        raise DeviceLostError(f"the device failed: {one_line(error)}") from error


def _call(
    pictures: Sequence[tuple[int, Picture]], number: int, task: Task
) -> list[list[Explanation]]:
    if not pictures:
        return []
    with ExitStack() as watched:
        for place, _ in pictures:
            watched.enter_context(task.watch(number, place)("explain"))
        pixels = [picture.pixels for _, picture in pictures]
        return task.explainer.explain(pixels, task.request, **at_a_time(task.batch_size))


def _finish(number: int, place: int, result: Result, task: Task, pools: Pools) -> Finishing:
    """Measures and draws what belongs to one picture, beside the detector, and starts to upload."""
    if isinstance(result, Failure):
        return place, result, []
    picture, explanations = result
    found, files = outcome(picture, explanations, task.overlays, task.watch(number, place))
    return (
        *(place, found),
        [
            pools.transfer.submit(task.output.write, folder(number) + name, data)
            for name, data in files.items()
        ],
    )

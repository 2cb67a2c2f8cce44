"""The Ray engine: one actor for each worker, given shards as it finishes others.

Each actor looks after a worker process of its own as the local engine does
(jobs.engines.ray_actor). This end looks after the actors: those of one that is lost, with or
without its node, go to the others, and a new one is made where the cluster has room.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from archives.errors import UsageError
from archives.stores.opening import open_store, split_uri
from jobs.engines.ray_actor import THREADS, Ending, NodeWorker
from jobs.engines.ray_cluster import Cluster
from jobs.engines.workers import AHEAD, DEATHS
from jobs.errors import ElsewhereError, WorkerEndedError, WorkersLostError
from jobs.options import JobOptions
from jobs.progress import counted
from jobs.work_order import WorkOrder
from jobs.worker.commit import read_stats
from jobs.worker.messages import (
    SHEET,
    Advanced,
    Committed,
    Drawn,
    Event,
    Job,
    Ready,
    Sampled,
    ShardOrder,
    event_of,
)

SECONDS_TO_END = 6.0  # of a worker that was told to; then its actor is killed
SECONDS_BETWEEN_LOOKS = 5.0  # at the cluster, while no actor has found a place on it
SECONDS_WITHOUT_ROOM = 60.0  # after which no node is expected to come back
METHODS_AT_ONCE = 4  # of an actor: NodeWorker has as many
INTERRUPTED = (130, 143)  # a worker's exit codes; whoever ended it did not end the job
# What stores and threads are set up with, and of that what is of use on the driver's machine alone.
PASSED_ON = ("AWS_", "WHYBOX_S3_", "OMP_WAIT_POLICY", THREADS)
KEPT = ("AWS_CONTAINER_", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CA_BUNDLE")
KEPT_END = "_FILE"
MOST_TOLD = 200  # characters of Ray's own reasons, which end in advice
NOT_INSTALLED = ("No module named", "ImportError")


@dataclass(eq=False)
class Actor:
    """An actor, and the shards that it has in hand.

    deaths: of those that had its place before it, since one of them did a shard. placed: whether
    it lives on a node. ready: whether it waits for orders.
    """

    handle: Any
    deaths: int = 0
    placed: bool = False
    ready: bool = False
    hand: dict[int, ShardOrder] = field(default_factory=dict)
    thread: threading.Thread | None = None

    def send(self, job: Job, line: bytes) -> None:
        """If it has died, its thread tells so."""
        self.handle.take.remote(job.to_line(), line)


Told: TypeAlias = tuple[Actor, Event | Ending | Exception]


class RayWorkers:
    """Actors that share a job's shards; used in a `with`, which ends them.

    Each takes one GPU where the device is CUDA's, else one CPU. There are as many as was asked for;
    if nothing was, as many as the cluster has GPUs, or on CPUs one on each node. Its nodes need the
    same Whybox, and have to reach input and output under the same names.
    """

    def __init__(self, order: WorkOrder, archive: Path) -> None:
        """archive: the .mar file that was verified for the order."""
        assert isinstance(order.options, JobOptions)
        self._order, self._options = order, order.options
        self._kind = "GPU" if self._options.device.startswith("cuda") else "CPU"
        self._archive = archive
        self._cluster = Cluster(archive.stat().st_size)
        self._told: SimpleQueue[Told] = SimpleQueue()
        self._actors: list[Actor] = []
        self._without_room: float | None = None  # since when
        self._said_waiting = False

    def __enter__(self) -> RayWorkers:
        """Raises UsageError if Ray or the cluster cannot be used, or has no room for as many."""
        with ExitStack() as entered:
            cluster = entered.enter_context(self._cluster)
            self._count = cluster.workers(self._kind, self._options.workers)
            self._neighbours = -(-self._count // cluster.nodes(self._kind))
            self._data = cluster.call(cluster.ray.put, self._archive.read_bytes())
            shutil.rmtree(self._order.folder, ignore_errors=True)  # nothing is loaded here
            entered.callback(self._end)
            self._actors.append(self._new())
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends actors and workers, and what was started of Ray, if that has not been done."""
        self._entered.close()

    def ready(self) -> Ready:
        """What the first actor's worker says once it has loaded the archive and seen the request.

        Raises ElsewhereError and WorkerEndedError if something was wrong there, and
        WorkersLostError.
        """
        while True:
            _, event = self._next()
            if isinstance(event, Ready):
                if not self._options.dry_run:
                    self._actors += [self._new() for _ in range(1, self._count)]
                return event

    @property
    def workers(self) -> int:
        """How many there are, once it is `ready`."""
        return self._count

    def try_out(self, job: Job) -> Sampled:
        """How fast the job's trial was; errors as for `ready`."""
        event = self._asked(job, Sampled)
        assert isinstance(event, Sampled)
        return event

    def draw_sheet(self, job: Job) -> bool:
        """Has the contact sheet drawn; False if there is nothing to draw. Errors as for `ready`."""
        event = self._asked(job, Drawn)
        assert isinstance(event, Drawn)
        return event.sheet

    def events(self, job: Job, orders: Iterator[ShardOrder]) -> Iterator[Event]:
        """Has all shards done, and passes on what is told; errors as for `ready`."""
        job = _from_anywhere(job)
        output = open_store(job.output)
        waiting: deque[ShardOrder] = deque()  # those of actors that were lost
        losses: Counter[int] = Counter()
        more = True
        while True:
            for actor in self._actors:
                while more and actor.ready and len(actor.hand) < AHEAD:
                    order = waiting.popleft() if waiting else next(orders, None)
                    if order is None:
                        more = False
                    else:
                        actor.hand[order.number] = order
                        actor.send(job, order.to_line())
            if not more and not any(actor.hand for actor in self._actors):
                return
            actor, event = self._next()
            if isinstance(event, Advanced | Committed):
                if isinstance(event, Committed):
                    actor.deaths = 0
                    del actor.hand[event.stats["shard"]]
                yield event
            for order in actor.hand.values() if event is None else ():
                # It may have been committed, and the message lost.
                stats = read_stats(output, order.number)
                if stats is not None:
                    yield Committed(stats)
                    continue
                losses[order.number] += 1
                if losses[order.number] >= DEATHS:
                    raise WorkersLostError(
                        f"shard {order.number} was in the hands of {DEATHS} workers that were lost,"
                        " perhaps for want of memory; finished shards are kept, the same command"
                        " does the rest"
                    )
                waiting.append(order)
                more = True

    def _asked(self, job: Job, kind: type[Event]) -> Event:
        """What an actor answers that has nothing else to do; another is asked if it is lost."""
        asked = None
        while True:
            if asked not in self._actors:
                asked = next((actor for actor in self._actors if actor.ready), None)
                if asked is not None:
                    asked.send(_from_anywhere(job), SHEET)
            actor, event = self._next()
            if actor is asked and isinstance(event, kind):
                return event

    def _next(self) -> tuple[Actor, Event | None]:
        """What an actor tells next; None: it is lost, and another has its place.

        Raises what ended its worker, if that is not the actor's end alone.
        """
        while True:
            try:
                actor, told = self._told.get(timeout=SECONDS_BETWEEN_LOOKS)
            except Empty:
                self._look()
                continue
            if isinstance(told, Ending) and told.exit_code not in INTERRUPTED:
                if "\n" in told.said:
                    print(told.said, file=sys.stderr, flush=True)  # a bug's traceback
                    raise WorkerEndedError(told.exit_code)
                raise ElsewhereError(told.said, told.exit_code)
            if isinstance(told, Ending | self._cluster.ray.exceptions.RayError):
                self._replace(actor, told)
                return actor, None
            if isinstance(told, Exception):
                raise told
            if isinstance(told, Ready):
                actor.ready = True
            return actor, told

    def _new(self, deaths: int = 0) -> Actor:
        ray = self._cluster.ray
        resources = {"num_gpus": 1, "num_cpus": 0} if self._kind == "GPU" else {"num_cpus": 1}
        made = ray.remote(NodeWorker).options(
            **resources,
            max_restarts=0,  # the next one is made here, where it is known what it has to do
            max_task_retries=0,
            max_concurrency=METHODS_AT_ONCE,
            scheduling_strategy="SPREAD",
        )
        actor = Actor(self._cluster.call(made.remote), deaths)
        actor.thread = threading.Thread(target=self._listen, args=(actor,), daemon=True)
        actor.thread.start()
        return actor

    def _listen(self, actor: Actor) -> None:
        get, handle = self._cluster.ray.get, actor.handle
        order = replace(self._order, folder=Path("of the node's own"))
        # As arguments, which go straight to the actor: Ray writes a runtime_env to its logs.
        given = (order.to_json(), self._data, passed_on(os.environ), self._neighbours)
        try:
            get(handle.begin.remote(*given))
            actor.placed = True
            ending = None
            while ending is None:
                lines, ending = get(handle.told.remote())
                for line in lines:
                    self._told.put((actor, event_of(line)))
            self._told.put((actor, ending))
        except Exception as error:  # it is for whoever waits for what this actor tells
            self._told.put((actor, error))

    def _replace(self, actor: Actor, reason: Ending | Exception) -> None:
        if isinstance(reason, Ending):
            why = f"it was ended with {reason.exit_code}"
        else:
            why = (str(reason).strip() or type(reason).__name__).splitlines()[-1][:MOST_TOLD]
        if any(text in str(reason) for text in NOT_INSTALLED):
            raise UsageError(
                "a node of the Ray cluster cannot run the job; it needs the same Whybox as this"
                f" machine: {why}"
            )
        print(
            f"jobs: a worker was lost, its {counted(len(actor.hand), 'shard')} in hand are given to"
            f" others: {why}",
            file=sys.stderr,
            flush=True,
        )
        self._cluster.call(self._cluster.ray.kill, actor.handle)  # if it is but out of reach
        place = self._actors.index(actor)
        if actor.deaths + 1 < DEATHS:
            self._actors[place] = self._new(actor.deaths + 1)
            return
        del self._actors[place]
        if not self._actors:
            raise WorkersLostError(
                f"the Ray cluster's workers were lost {DEATHS} times in a row, the last one: {why};"
                " finished shards are kept, the same command does the rest"
            )

    def _look(self) -> None:
        """Says, once, that there is nothing to wait for but a place, and raises WorkersLostError
        after a while in which no node has one."""
        if any(actor.placed for actor in self._actors):
            self._without_room = None
            return
        if not self._said_waiting:
            self._said_waiting = True
            print(f"jobs: waiting for a {self._kind} of {self._cluster}", file=sys.stderr)
        now = time.monotonic()
        if self._cluster.places(self._kind):
            self._without_room = None
        elif self._without_room is None:
            self._without_room = now
        elif now - self._without_room > SECONDS_WITHOUT_ROOM:
            raise WorkersLostError(
                f"no worker is left, and there is no {self._kind} in {self._cluster}; finished"
                " shards are kept, the same command does the rest"
            )

    def _end(self) -> None:
        ray = self._cluster.ray
        ends = [actor.handle.end.remote() for actor in self._actors if actor.placed]
        if ends:
            self._cluster.call(ray.wait, ends, num_returns=len(ends), timeout=SECONDS_TO_END)
        for actor in self._actors:
            self._cluster.call(ray.kill, actor.handle)
        for actor in self._actors:
            if actor.thread is not None:
                actor.thread.join(1.0)


def _from_anywhere(job: Job) -> Job:
    """With whole paths: actors have another folder to start from."""
    return replace(job, source=_whole(job.source), output=_whole(job.output))


def _whole(uri: str) -> str:
    root, path = split_uri(uri)
    return f"/{path}" if root == "/" else uri


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Of environment variables those that a worker on another machine needs, too."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(PASSED_ON) and not name.startswith(KEPT) and not name.endswith(KEPT_END)
    }

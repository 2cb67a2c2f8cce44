"""The local engine: worker processes of this machine, one for each GPU, and what becomes of them.

A worker that dies takes no picture with it. Those it had in hand are done again, each alone; one
that ends the process a second time, alone, is recorded as a failure and left out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias

from archives.signatures.variables import SECRET_VARIABLES
from jobs.errors import KilledError, WorkerEndedError
from jobs.options import JobOptions
from jobs.work_order import WorkOrder
from jobs.worker.messages import (
    SHEET,
    Begun,
    Blame,
    Committed,
    Drawn,
    Ended,
    Event,
    Job,
    Ready,
    Sampled,
    ShardOrder,
    event_of,
)

PROJECT = Path(__file__).resolve().parents[2]
AHEAD = 3  # shards that a worker is given: one is committed, one explained, one fetched
DEATHS = 3  # in a row, with no picture to blame or to suspect, and no shard done
BLAMED = 20  # pictures in a row, with none explained: then it is not the pictures
SECONDS_TO_END = 5.0  # of a process that was told to; then it is killed


@dataclass(eq=False)
class Worker:
    """A process, and what it has in hand.

    has_job: whether it has been told of the job. hand: orders by shard. pictures: what is being
    done with them, by shard and place.
    """

    number: int
    device: str
    process: subprocess.Popen[bytes]
    has_job: bool = False
    hand: dict[int, ShardOrder] = field(default_factory=dict)
    pictures: dict[tuple[int, int], str] = field(default_factory=dict)

    def begin(self, job: Job) -> None:
        """Tells it of the job."""
        self.has_job = True
        self.send(job.to_line())

    def send(self, line: bytes) -> None:
        """Writes to the worker; if it has died, the end of its events tells so."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except BrokenPipeError:
            return


Told: TypeAlias = tuple[Worker, Event | None]  # None: it has ended


class LocalWorkers:
    """Worker processes that share a job's shards; used in a `with`, which ends them."""

    def __init__(self, order: WorkOrder) -> None:
        assert isinstance(order.options, JobOptions)
        self._order = order
        self._options = order.options
        self._told: SimpleQueue[Told] = SimpleQueue()
        self._workers: list[Worker] = []
        self._deaths = self._blamed = 0

    def __enter__(self) -> LocalWorkers:
        self._workers.append(self._start(0, self._options.device))
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends the worker processes, if they have not ended."""
        for worker in self._workers:
            worker.process.terminate()
        deadline = time.monotonic() + SECONDS_TO_END
        for worker in self._workers:
            end(worker.process, deadline - time.monotonic())

    def ready(self) -> Ready:
        """What the first worker says once it has loaded the archive and seen the request.

        Raises WorkerEndedError if something was wrong, which the worker has told the user, and
        KilledError.
        """
        event = self._one_event()
        assert isinstance(event, Ready)
        self._share(event.gpus)
        return event

    @property
    def workers(self) -> int:
        """How many there are, once it is `ready`."""
        return len(self._workers)

    def try_out(self, job: Job) -> Sampled:
        """How fast the job's trial was; errors as for `ready`."""
        self._workers[0].send(job.to_line())
        while not isinstance(event := self._one_event(), Sampled):
            pass  # other workers say that they are ready
        return event

    def events(self, job: Job, orders: Iterator[ShardOrder]) -> Iterator[Event]:
        """Has all shards done, and passes on what is told; errors as for `ready`."""
        waiting: list[ShardOrder] = []  # those of workers that died
        for worker in self._workers:
            worker.begin(job)
            _give(worker, waiting, orders)
        while any(worker.hand for worker in self._workers):
            worker, event = self._told.get()
            if event is None:
                waiting[:0] = self._left_by(worker)
                worker = self._workers[worker.number] = self._start(worker.number, worker.device)
                worker.begin(job)
            elif isinstance(event, Begun):
                worker.pictures[event.shard, event.place] = event.stage
            elif isinstance(event, Ended):
                if worker.pictures.pop((event.shard, event.place), "") == "explain":
                    self._blamed = 0
            else:
                if isinstance(event, Committed):
                    self._deaths = 0
                    del worker.hand[event.stats["shard"]]
                yield event
            _give(worker, waiting, orders)

    def draw_sheet(self, job: Job) -> bool:
        """Has the first worker draw the contact sheet; False if there is nothing to draw. Errors
        as for `ready`."""
        worker = self._workers[0]
        if not worker.has_job:
            worker.begin(job)
        worker.send(SHEET)
        while not isinstance(event := self._one_event(), Drawn):
            pass
        return event.sheet

    def _one_event(self) -> Event:
        worker, event = self._told.get()
        if event is None:
            raise _end_of(worker)
        return event

    def _share(self, gpus: int) -> None:
        """Starts the other workers."""
        device = self._options.device
        count = self._options.workers or (max(1, gpus) if device == "cuda" else 1)
        for number in range(1, count):
            own = f"cuda:{number % gpus}" if device == "cuda" and gpus else device
            self._workers.append(self._start(number, own))

    def _left_by(self, worker: Worker) -> list[ShardOrder]:
        """A dead worker's shards, as they are to be done now; raises if it is no use."""
        error = _end_of(worker)
        if not isinstance(error, KilledError):
            raise error
        in_hand = set(worker.pictures)
        alone = {(order.number, p) for order in worker.hand.values() for p in order.alone}
        blamed = in_hand & alone if len(in_hand) == 1 else set()
        # A picture can be blamed, or come under suspicion, but once: so this ends.
        self._deaths = 0 if blamed or in_hand - alone else self._deaths + 1
        self._blamed += len(blamed)
        if self._deaths >= DEATHS or self._blamed >= BLAMED:
            raise error
        orders = []
        for order in worker.hand.values():
            own = {place for shard, place in in_hand - blamed if shard == order.number}
            guilty = [place for shard, place in blamed if shard == order.number]
            kept = {*order.alone, *own} - set(guilty)
            new = [Blame(p, worker.pictures[order.number, p], error.signal.name) for p in guilty]
            orders.append(ShardOrder(order.number, tuple(sorted(kept)), (*order.blamed, *new)))
        return orders

    def _start(self, number: int, device: str) -> Worker:
        """A worker imports `handlers` from the archive and everything else from here.

        PYTHONPATH replaces the user's: nothing of theirs may shadow the archive's code.
        """
        order = replace(self._order, options=replace(self._options, device=device))
        order_file = self._order.folder.parent / f"order-{number}.json"
        order_file.write_text(order.to_json())
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobs.worker", str(order_file), str(writing)],
            env=environment(order.folder, self._options.workers or number + 1),
            stdin=subprocess.PIPE,  # kept open: its end tells the worker that this process is gone
            pass_fds=[writing],
        )
        os.close(writing)
        worker = Worker(number, device, process)
        threading.Thread(target=self._listen, args=(worker, reading), daemon=True).start()
        return worker

    def _listen(self, worker: Worker, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as pipe:
            for line in pipe:
                if line.endswith(b"\n"):  # not the half of a line that it died at
                    self._told.put((worker, event_of(line)))
        self._told.put((worker, None))


def _give(worker: Worker, waiting: list[ShardOrder], orders: Iterator[ShardOrder]) -> None:
    """Shards, until the worker has enough; one with pictures that are done alone comes alone."""
    while len(worker.hand) < AHEAD and not any(order.alone for order in worker.hand.values()):
        if waiting and waiting[0].alone and worker.hand:
            return
        order = waiting.pop(0) if waiting else next(orders, None)
        if order is None:
            return
        worker.hand[order.number] = order
        worker.send(order.to_line())


def _end_of(worker: Worker) -> WorkerEndedError | KilledError:
    code = worker.process.wait()
    if code < 0 and -code not in (signal.SIGINT, signal.SIGTERM):
        return KilledError(signal.Signals(-code))
    return WorkerEndedError(code if code >= 0 else 128 - code)


def environment(folder: Path, workers: int) -> dict[str, str]:
    """That of a worker process, which runs the archive's code: all but the secrets of signing.

    Several share the processor's cores.
    """
    passed_on = {name: each for name, each in os.environ.items() if name not in SECRET_VARIABLES}
    own = {
        "PYTHONPATH": os.pathsep.join([str(folder), str(PROJECT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        own["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    return {**passed_on, **own}


def end(process: subprocess.Popen[bytes], seconds: float = SECONDS_TO_END) -> None:
    """Waits for a process that was told to end, and kills it if it does not."""
    try:
        process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # it died before it had read all
            process.stdin.close()

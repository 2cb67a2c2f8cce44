"""What of the Ray engine runs on a node: an actor with a worker process, which it looks after.

Nothing here imports Ray. A node needs the same Whybox as the machine that the job is started on.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue

from archives.errors import CommandError, UnsafeError, one_line
from archives.verify import extract
from handlers.manifest import ArchiveError
from jobs.engines.workers import LocalWorkers
from jobs.errors import WorkerEndedError
from jobs.options import JobOptions
from jobs.work_order import WorkOrder
from jobs.worker.messages import SHEET, Committed, Drawn, Event, Job, ShardOrder, event_line

END = b""  # instead of an order: nothing more is wanted
LINES_KEPT = 60  # of what was written to stderr
POLL_SECONDS = 5.0
THREADS = "OMP_NUM_THREADS"
_MARK = b"\0whybox: so far\n"


@dataclass(frozen=True)
class Ending:
    """How an actor's worker has ended.

    exit_code: as for the local engine. said: why, in one line; of a bug the whole traceback.
    """

    exit_code: int
    said: str


class NodeWorker:
    """Made an actor by Ray; its methods are called beside each other, so in no certain order."""

    def __init__(self) -> None:
        self._told: SimpleQueue[Event | Ending] = SimpleQueue()
        self._orders = Orders()
        self._said = Said()
        self._workers: LocalWorkers | None = None
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(
        self, order: str, archive: bytes, environment: Mapping[str, str], neighbours: int
    ) -> None:
        """Has the archive verified, unpacked and loaded, in a thread of its own.

        order: a WorkOrder's JSON. archive: the .mar file. environment: for the worker process.
        neighbours: how many workers share the node, this one among them.
        """
        # Ray allows a process one thread. Of one worker on its node the local engine asks nothing.
        os.environ.pop(THREADS, None)
        if neighbours > 1:
            os.environ[THREADS] = str(max(1, (os.cpu_count() or 1) // neighbours))
        os.environ.update(environment)
        given = WorkOrder.from_json(order)
        self._thread = threading.Thread(target=self._run, args=(given, archive), daemon=True)
        self._thread.start()

    def take(self, job: bytes, line: bytes) -> None:
        """Something to do: the job's line, and a shard's order, SHEET or END."""
        self._orders.give(job, line)

    def told(self) -> tuple[list[bytes], Ending | None]:
        """Events since the last call, as lines, and how it ended if it has; waits for them a
        while."""
        lines: list[bytes] = []
        try:
            each = self._told.get(timeout=POLL_SECONDS)
            while not isinstance(each, Ending):
                lines.append(event_line(each))
                each = self._told.get_nowait()
        except Empty:
            return lines, None
        return lines, each

    def end(self) -> None:
        """Ends the worker process and removes what was unpacked; nothing can follow."""
        self._ending.set()
        if self._workers is not None:
            self._workers.__exit__()
        self._orders.give(b"", END)
        if self._thread is not None:
            self._thread.join()

    def _run(self, order: WorkOrder, archive: bytes) -> None:
        try:
            with tempfile.TemporaryDirectory(
                prefix="whybox-", ignore_cleanup_errors=True
            ) as private:
                own = unpacked(order, archive, Path(private))
                self._workers = LocalWorkers(own)
                if not self._ending.is_set():
                    with self._workers as workers:
                        self._work(workers)
        except WorkerEndedError as error:
            self._told.put(Ending(error.exit_code, self._said.why()))
        except CommandError as error:
            self._told.put(Ending(error.exit_code, one_line(error)))
        except Exception:
            self._told.put(Ending(CommandError.exit_code, traceback.format_exc()))

    def _work(self, workers: LocalWorkers) -> None:
        self._told.put(workers.ready())
        job = self._orders.job()
        if job is None:
            return
        if job.trial:
            self._told.put(workers.try_out(job))
            return
        for event in workers.events(job, self._orders):
            if isinstance(event, Committed):
                self._orders.committed()
            self._told.put(event)
        if not self._ending.is_set():
            self._told.put(Drawn(workers.draw_sheet(job)))


class Orders:
    """The shards that an actor was given, as `LocalWorkers.events` takes them.

    It asks after each of a worker's events, and sees none while it waits here. So this iterator is
    exhausted for now while shards are in hand, and waits only while none is.
    """

    def __init__(self) -> None:
        self._given: SimpleQueue[tuple[bytes, bytes]] = SimpleQueue()
        self._first: bytes | None = None
        self._in_hand = 0

    def give(self, job: bytes, line: bytes) -> None:
        """From any thread; see NodeWorker.take."""
        self._given.put((job, line))

    def job(self) -> Job | None:
        """The job of the first order, once that is given; None: there is none."""
        job, self._first = self._given.get()
        return Job.from_line(job) if job else None

    def committed(self) -> None:
        """One shard is no longer in hand."""
        self._in_hand -= 1

    def __iter__(self) -> Orders:
        return self

    def __next__(self) -> ShardOrder:
        try:
            line = self._first
            if line is None:
                line = self._given.get(block=not self._in_hand)[1]
        except Empty:
            raise StopIteration from None
        if line in (SHEET, END):
            self._first = line  # nothing follows
            raise StopIteration
        self._first = None
        self._in_hand += 1
        return ShardOrder.from_line(line)


class Said:
    """What this process and its children write to stderr: passed on to where it went before, and
    the end of it kept."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque(maxlen=LINES_KEPT)
        self._marked = threading.Event()
        reading, writing = os.pipe()
        before = os.dup(2)
        os.dup2(writing, 2)
        os.close(writing)
        threading.Thread(target=self._listen, args=(reading, before), daemon=True).start()

    def why(self) -> str:
        """A CommandError's line, without what is before its message; all lines if there is none."""
        self._marked.clear()
        os.write(2, _MARK)  # comes after all that a process wrote that has ended
        self._marked.wait(POLL_SECONDS)
        lines = list(self._kept)
        own = [line.removeprefix("jobs: ") for line in lines if line.startswith("jobs: ")]
        return own[-1] if own else "\n".join(lines) or "a worker ended and did not say why"

    def _listen(self, reading: int, before: int) -> None:
        with os.fdopen(reading, "rb") as pipe:
            for line in pipe:
                if line.endswith(_MARK):
                    self._marked.set()
                    continue
                os.write(before, line)
                self._kept.append(line.decode(errors="replace").rstrip("\n"))


def unpacked(order: WorkOrder, archive: bytes, private: Path) -> WorkOrder:
    """The order as it is for this machine: one worker, and the archive in a folder below `private`.

    Raises UnsafeError if the archive is not the one that the order's sender verified.
    """
    path, folder = private / "archive.mar", private / "archive"
    path.write_bytes(archive)
    try:
        manifest = extract(path, folder)
    except ArchiveError as error:
        raise UnsafeError(f"the archive that came to {socket.gethostname()}: {error}") from error
    path.unlink()
    if manifest.digest != order.archive.digest:
        raise UnsafeError(
            f"the archive was changed since it was verified: its digest was"
            f" {order.archive.digest[:12]}... and is {manifest.digest[:12]}...; run the job again"
        )
    assert isinstance(order.options, JobOptions)
    # Ray shows an actor the one GPU that is its own.
    device = "cuda" if order.options.device.startswith("cuda") else order.options.device
    return replace(order, options=replace(order.options, device=device, workers=1), folder=folder)

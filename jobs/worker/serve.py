"""A worker's life in `jobs explain`: it says that it is ready, is told of the job, does shards."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING

from archives.stores.opening import open_store
from jobs.errors import DONE
from jobs.inputs.plan import Plan
from jobs.lease import guard
from jobs.worker.messages import SHEET, Drawn, Event, Job, Ready, Sampled, ShardOrder, event_line
from jobs.worker.pictures import Failure, Pools, load
from jobs.worker.shard import Task, explain_shards, explain_window

if TYPE_CHECKING:
    from handlers.explainer import Explainer
    from handlers.schema import ExplainRequest


def serve(
    explainer: Explainer,
    request: ExplainRequest,
    batch_size: int | None,
    lines: SimpleQueue[bytes],
    events: int,
) -> int:
    """Does what is ordered by `lines` and tells of it by the file descriptor `events`."""
    teller = Teller(events)
    teller.tell(Ready(asdict(request), _gpus()))
    job = Job.from_line(lines.get())
    output = open_store(job.output)
    task = Task(
        explainer=explainer,
        request=request,
        source=open_store(job.source),
        output=output,
        batch_size=batch_size,
        overlays=job.overlays,
        tell=teller.tell,
        may_write=guard(output, job.lease, job.token),
    )
    if job.trial:
        teller.tell(_try(task, job.trial))
        return DONE
    plan, pools = Plan(output, job.shard_size, job.pictures), Pools.start()
    try:
        explain_shards(_orders(lines), plan, task, pools)
        teller.tell(Drawn(_draw_sheet(task, plan)))
    finally:
        pools.shutdown()
    return DONE


def _draw_sheet(task: Task, plan: Plan) -> bool:
    from jobs.contact_sheet import write_contact_sheet  # it needs torch

    return write_contact_sheet(task.source, task.output, plan)


class Teller:
    """Writes events, from any thread, each as a whole line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def tell(self, event: Event) -> None:
        """Writes without a buffer: a line that was told outlives the process."""
        line = memoryview(event_line(event))
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


def _orders(lines: SimpleQueue[bytes]) -> Iterator[ShardOrder]:
    while (line := lines.get()) != SHEET:
        yield ShardOrder.from_line(line)


def _try(task: Task, keys: tuple[str, ...]) -> Sampled:
    """Explains the pictures twice, since the first time is slower, and times the second."""
    task = replace(task, tell=lambda event: None)
    loaded = [(place, load(task.source, key)) for place, key in enumerate(keys)]
    done, seconds = 0, 0.0
    for _ in range(2):
        started = time.monotonic()
        found = explain_window(loaded, 0, task)
        seconds = time.monotonic() - started
        done = sum(not isinstance(each, Failure) for _, each in found)
    return Sampled(done, seconds)


def _gpus() -> int:
    torch = sys.modules.get("torch")  # an archive's code decides whether it is needed
    return int(torch.cuda.device_count()) if torch is not None else 0

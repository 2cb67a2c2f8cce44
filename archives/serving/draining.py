"""Knowing when a version of a model has answered all that it was asked.

TorchServe never answers what a version still has when it is unregistered. Its description counts
the requests in a queue, but not those at work, so that its log has to tell: a worker's thread
writes a line when it hands over a batch, and another after it has answered that.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from archives.serving.management import ManagementError
from archives.serving.server import Server

LOG = "ts_log.log"
BATCH = re.compile(
    r"\] W-(\w+)-\S* org\.pytorch\.serve\.wlm\.WorkerThread - "
    r"(Looping backend response|Backend response time)"
)
BEGUN = "Looping"
# A request may have looked up the default just before that was changed, and been added to the queue
# just after; and between a queue and the log's line a batch is in neither.
QUIET_SECONDS = 0.5
POLL_SECONDS = 0.05


class BatchLog:
    """Which workers are at work, by the server's log; follows it, also into the next file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._rest = b""
        self._at_work: dict[str, bool] = {}
        self._begun: dict[str, int] = {}

    def close(self) -> None:
        self._file.close()

    def read(self) -> None:
        """Takes in what was written since."""
        self._take(self._file.read())
        if self._path.exists() and not self._path.samefile(f"/dev/fd/{self._file.fileno()}"):
            self._take(self._file.read())
            self._file.close()
            self._file = self._path.open("rb")
            self._take(self._file.read())

    def at_work(self, worker: str) -> bool:
        """Whether it has a batch. One of which the log says nothing has none."""
        return self._at_work.get(worker, False)

    def begun(self, worker: str) -> int:
        """Batches that it has begun."""
        return self._begun.get(worker, 0)

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if found := BATCH.search(line.decode(errors="replace")):
                worker, begun = found[1], found[2].startswith(BEGUN)
                self._at_work[worker] = begun
                self._begun[worker] = self._begun.get(worker, 0) + begun


def drained(server: Server, name: str, version: str, seconds: float) -> bool:
    """Waits until this version, which is not the default any more, has answered everything, and
    nobody asks it by its number; whether that was within `seconds`."""
    deadline = time.monotonic() + seconds
    if not _asked_last(server, name, version, deadline):
        return False
    log = BatchLog(server.logs / LOG)
    try:
        quiet_since, seen = time.monotonic(), -1
        while time.monotonic() < deadline:
            found = server.management.versions(name, version)
            log.read()
            begun = sum(log.begun(worker) for each in found for worker in each.workers)
            busy = any(each.pending or any(map(log.at_work, each.workers)) for each in found)
            if busy or begun != seen:
                quiet_since, seen = time.monotonic(), begun
            quiet = QUIET_SECONDS + 2 * max((each.batch_seconds for each in found), default=0)
            if time.monotonic() - quiet_since > quiet:
                return True
            time.sleep(POLL_SECONDS)
        return False
    finally:
        log.close()


def _asked_last(server: Server, name: str, version: str, deadline: float) -> bool:
    """A question that is answered after all that came before it to the same worker; whether it was
    in time. So a single worker has done all of that even where the log should have a gap."""
    time.sleep(min(QUIET_SECONDS, max(0.0, deadline - time.monotonic())))
    while (left := deadline - time.monotonic()) > 0:
        try:
            server.management.digest(name, version, left)
        except ManagementError as error:
            # The queue is full, or its worker died and is starting.
            if not error.status:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True
    return False

"""What clients see when something breaks, and how long until the endpoint answers again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from archives.serving import server
from archives.serving.processes import executable
from tests.test_endpoint import PNG, post

pytestmark = [pytest.mark.server, pytest.mark.full]
# TorchServe starts another worker at once; that loads torch and the model, and explains a picture.
RESTART = 60.0
CLIENTS = 4
# TorchServe's answer to those whose worker has died.
DIED = 507


@pytest.fixture
def own(demo_archive: Path, tmp_path: Path) -> Iterator[server.Server]:
    """A server to break."""
    options = server.ServerOptions((demo_archive,), tmp_path / "s", ports=server.Ports())
    with server.start(options) as started:
        started.wait_ready()
        yield started


def workers(endpoint: server.Server) -> list[int]:
    return [each for each in endpoint.processes() if executable(each) != "java"]


def java(endpoint: server.Server) -> psutil.Process:
    (found,) = [each for each in endpoint.processes() if executable(each) == "java"]
    return psutil.Process(found)


class Clients:
    """Some that ask one request after another, with what they saw and when they saw a 200."""

    def __init__(self, endpoint: server.Server) -> None:
        self.endpoint, self.seen, self.good = endpoint, Counter[int](), list[float]()
        self.ended = threading.Event()

    def run(self, _: int) -> None:
        while not self.ended.is_set():
            try:
                status = post(self.endpoint, "explanations", data=PNG).status_code
            except requests.RequestException:
                status = 0  # no answer
            self.seen[status] += 1
            if status == 200:
                self.good.append(time.monotonic())
            else:
                time.sleep(0.2)

    def __enter__(self) -> Clients:
        self.pool = ThreadPoolExecutor(CLIENTS)
        self.waiting = [self.pool.submit(self.run, each) for each in range(CLIENTS)]
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for each in self.waiting:
            each.result()
        self.pool.shutdown()

    def wait_for_good(self, since: float, seconds: float) -> float:
        """Seconds from `since` to the first 200 after it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if later := [each for each in self.good if each > since]:
                return min(later) - since
            time.sleep(0.1)
        raise AssertionError(f"no good answer within {seconds} s; {self.seen}")


def test_a_worker_killed_under_load_comes_back(own: server.Server) -> None:
    (worker,) = workers(own)
    with Clients(own) as clients:
        clients.wait_for_good(time.monotonic(), 30)
        os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
        time.sleep(1)  # what was on its way
        since = time.monotonic()
        back = since - killed + clients.wait_for_good(since, RESTART)
    print(f"\nkill -9: {dict(clients.seen)}, first good answer after {back:.1f} s")
    assert clients.seen.keys() <= {200, DIED, 503}  # none hangs, none is without an answer
    assert 1 <= clients.seen[DIED] <= CLIENTS  # those that the worker had
    assert workers(own) != [worker]


def test_a_picture_that_takes_the_decoder_down(own: server.Server) -> None:
    """No such picture is known, so the worker is killed while it decodes one: what others see."""
    (worker,) = workers(own)
    with ThreadPoolExecutor(2) as pool:
        psutil.Process(worker).suspend()  # as if it were in the decoder
        first = pool.submit(post, own, "explanations", data=PNG)
        time.sleep(1)
        second = pool.submit(post, own, "predictions", data=PNG)
        time.sleep(0.5)
        os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
        statuses = [first.result().status_code, second.result().status_code]
    print(f"\nin the decoder: {statuses}, after {time.monotonic() - killed:.1f} s")
    assert statuses == [DIED, 200]  # the next in the queue waits for the next worker
    own.wait_ready()
    assert post(own, "explanations", data=PNG).status_code == 200


def test_logs_that_cannot_be_written(own: server.Server) -> None:
    """A disk that is full, for the logs: no file may grow."""
    assert post(own, "explanations", data=PNG).status_code == 200
    time.sleep(1)
    before = own.request_log.stat().st_size
    java(own).rlimit(psutil.RLIMIT_FSIZE, (before, psutil.RLIM_INFINITY))
    statuses = Counter(post(own, "explanations", data=PNG).status_code for _ in range(60))
    print(f"\nno room for logs: {dict(statuses)}")
    assert statuses == {200: 60}
    assert own.request_log.stat().st_size == before
    java(own).rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
    assert post(own, "explanations", data=PNG).status_code == 200
    time.sleep(1)
    assert own.request_log.stat().st_size > before

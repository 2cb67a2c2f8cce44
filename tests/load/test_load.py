"""More than the server can do: locust sends four times that, and everyone gets an answer.

`make test` does so for seconds, `make test-full` for three minutes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from archives.serving import server
from tests.test_endpoint import PNG, post

pytestmark = pytest.mark.server
TIMES = 4
# Closed-loop clients that find out what the server can do: two batches.
CLIENTS, TRIALS = 16, 48
QUEUE = 32  # of the archive's model-config.yaml
RECOVERY = 10.0  # seconds
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def own(demo_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Server]:
    """A server of its own: what is queued here must not make other tests wait."""
    folder = tmp_path_factory.mktemp("load")
    options = server.ServerOptions((demo_archive,), folder / "s", ports=server.Ports())
    with server.start(options) as started:
        started.wait_ready()
        yield started


def latency(endpoint: server.Server) -> float:
    """Seconds that one request takes, alone."""
    start = time.perf_counter()
    answer = post(endpoint, "explanations", files={"picture": PNG})
    assert answer.status_code == 200, answer.text[:200]
    return time.perf_counter() - start


def rate(endpoint: server.Server) -> float:
    """Answers a second, with a queue that is never empty and never full."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        start = time.perf_counter()
        list(pool.map(lambda _: latency(endpoint), range(TRIALS)))
        return TRIALS / (time.perf_counter() - start)


class Memory:
    """MiB that are the server's processes' own, looked at every second by a thread."""

    def __init__(self, endpoint: server.Server) -> None:
        self.processes = [psutil.Process(each) for each in endpoint.processes()]
        self.seen: list[list[float]] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(1):
            self.seen.append([each.memory_full_info().uss / MEBIBYTE for each in self.processes])

    def __enter__(self) -> Memory:
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def thirds(self) -> list[float]:
        """The median of each third of the time, all processes together."""
        total = [sum(each) for each in self.seen]
        length = len(total) // 3
        return [
            statistics.median(total[place * length : (place + 1) * length]) for place in range(3)
        ]


def overload(endpoint: server.Server, folder: Path, seconds: int, asked: float) -> dict[str, int]:
    """Counts of answers, while `asked` requests come each second."""
    (folder / "picture.png").write_bytes(PNG)
    boxes = len(post(endpoint, "explanations", files={"picture": PNG}).json()["explanations"])
    report = folder / "report.json"
    # Who waits in the queue does not ask again meanwhile, so there are more of them.
    users = round(asked) + QUEUE + CLIENTS
    command = [
        sys.executable,
        "-m",
        "locust",
        "--headless",
        "--only-summary",
        "--loglevel",
        "ERROR",
    ]
    command += ["--locustfile", str(Path(__file__).with_name("locustfile.py"))]
    command += ["--host", endpoint.inference_url, "--users", str(users)]
    command += ["--spawn-rate", str(users), "--run-time", f"{seconds}s", "--stop-timeout", "60"]
    environment = {
        "TOKEN_HEADER": str(endpoint.header_file("inference")),
        "PICTURE": str(folder / "picture.png"),
        "BOXES": str(boxes),
        "REPORT": str(report),
    }
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=seconds + 120
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    counts: dict[str, int] = json.loads(report.read_text())
    return counts


@pytest.mark.parametrize(
    "seconds",
    [8, pytest.param(180, marks=[pytest.mark.full, pytest.mark.timeout(600)])],
)
def test_four_times_what_it_can_do(own: server.Server, tmp_path: Path, seconds: int) -> None:
    usual = statistics.median(latency(own) for _ in range(5))
    possible = rate(own)
    workers = own.processes()
    with Memory(own) as memory:
        counts = overload(own, tmp_path, seconds, TIMES * possible)
    ended = time.perf_counter()
    while latency(own) > max(1.5 * usual, usual + 0.3):
        assert time.perf_counter() - ended < RECOVERY, "it is still slow"
    recovered = time.perf_counter() - ended
    thirds = memory.thirds()
    print(
        f"\n{possible:.1f} a second possible, {counts['sent'] / seconds:.1f} asked for {seconds} s:"
        f" {counts}; alone {usual:.3f} s, as usual again {recovered:.1f} s after the end;"
        f" MiB in each third of the time {[round(each) for each in thirds]},"
        f" by process {[[round(one) for one in each] for each in memory.seen[::20]]}"
    )
    answered = {status: counts.get(status, 0) for status in ("200", "429", "503")}
    assert counts.get("wrong", 0) == 0
    assert sum(answered.values()) + counts.get("left", 0) == counts["sent"]  # none is lost
    assert answered["200"] > 0
    assert own.processes() == workers
    if seconds > 60:  # a short time says little on a machine that does other things
        assert answered["200"] > 0.5 * possible * seconds
        assert counts["sent"] >= 0.75 * TIMES * possible * seconds
        # Java fills its heap at first; from then on there is nothing that grows.
        assert thirds[2] < 1.05 * thirds[1] + 20

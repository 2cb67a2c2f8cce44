"""Worker processes: what each is given, and what becomes of what a dead one had in hand."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from archives.signatures.variables import SECRET_VARIABLES
from jobs.__main__ import main
from jobs.engines import workers
from jobs.engines.workers import DEATHS, PROJECT, LocalWorkers, Worker, _give, end, environment
from jobs.errors import KilledError, WorkerEndedError
from jobs.options import JobOptions
from jobs.work_order import ArchiveFacts, WorkOrder
from jobs.worker.messages import Blame, ShardOrder
from tests.conftest import put
from tests.jobs.archive_stub import write_archive
from tests.jobs.conftest import rows
from tests.jobs.test_survival import command, tables

FOLDER = Path("/archive")
Pictures = dict[tuple[int, int], str]
KILLED = -signal.SIGKILL


def pool() -> LocalWorkers:
    options = JobOptions("demo.mar", ("in",), "out")
    return LocalWorkers(WorkOrder(options, ArchiveFacts("demo", "1.0", "ab"), FOLDER))


def dead(pictures: Pictures, *hand: ShardOrder, code: int = KILLED) -> Worker:
    """A worker that ended with `code`, with this in hand."""
    process = cast(Any, SimpleNamespace(wait=lambda: code, stdin=io.BytesIO()))
    return Worker(0, "cpu", process, True, {order.number: order for order in hand}, pictures)


@pytest.mark.parametrize(
    ("pictures", "hand", "left"),
    [
        ({}, [ShardOrder(3)], [ShardOrder(3)]),
        # Those in hand are done again, each alone; nobody is blamed yet.
        (
            {(3, 5): "decode", (3, 1): "explain", (4, 0): "decode"},
            [ShardOrder(3), ShardOrder(4)],
            [ShardOrder(3, (1, 5)), ShardOrder(4, (0,))],
        ),
        ({(3, 5): "decode"}, [ShardOrder(3)], [ShardOrder(3, (5,))]),
        # One that was alone is to blame, and it only; the others stay alone.
        (
            {(3, 5): "render"},
            [ShardOrder(3, (1, 5, 7), (Blame(0, "decode", "SIGSEGV"),))],
            [ShardOrder(3, (1, 7), (Blame(0, "decode", "SIGSEGV"), Blame(5, "render", "SIGKILL")))],
        ),
        # Another than those that are to be alone, and alone with nothing in hand.
        ({(3, 2): "decode"}, [ShardOrder(3, (1, 5))], [ShardOrder(3, (1, 2, 5))]),
        ({}, [ShardOrder(3, (1, 5))], [ShardOrder(3, (1, 5))]),
        # The same place of another shard.
        (
            {(4, 5): "decode"},
            [ShardOrder(3, (5,)), ShardOrder(4)],
            [
                ShardOrder(3, (5,)),
                ShardOrder(4, (5,)),
            ],
        ),
        # Not alone after all.
        ({(3, 5): "decode", (3, 6): "decode"}, [ShardOrder(3, (5,))], [ShardOrder(3, (5, 6))]),
    ],
)
def test_what_a_killed_worker_leaves(
    pictures: Pictures, hand: list[ShardOrder], left: list[ShardOrder]
) -> None:
    assert pool()._left_by(dead(pictures, *hand)) == left


@pytest.mark.parametrize(
    ("code", "exit_code"), [(0, 0), (2, 2), (75, 75), (-signal.SIGTERM, 143), (-signal.SIGINT, 130)]
)
def test_a_worker_that_ended_by_itself_ends_the_run(code: int, exit_code: int) -> None:
    with pytest.raises(WorkerEndedError) as caught:
        pool()._left_by(dead({(0, 1): "decode"}, ShardOrder(0), code=code))
    assert caught.value.exit_code == exit_code


def test_it_gives_up_where_no_picture_is_to_blame() -> None:
    local = pool()
    for _ in range(DEATHS - 1):
        assert local._left_by(dead({}, ShardOrder(0))) == [ShardOrder(0)]
    with pytest.raises(KilledError, match="SIGKILL") as caught:
        local._left_by(dead({}, ShardOrder(0)))
    assert caught.value.exit_code == 137


def test_it_does_not_give_up_while_pictures_are_found_to_blame() -> None:
    local = pool()
    for place in range(2 * DEATHS):
        [order] = local._left_by(dead({(0, place): "decode"}, ShardOrder(0)))
        [order] = local._left_by(dead({(0, place): "decode"}, order))
        assert order == ShardOrder(0, (), (Blame(place, "decode", "SIGKILL"),))


def test_it_does_not_give_up_while_more_pictures_come_under_suspicion() -> None:
    """What was not in hand before comes first, so suspects come alone when all others are done."""
    local, order = pool(), ShardOrder(0)
    for place in range(2 * DEATHS):
        [order] = local._left_by(dead({(0, place): "decode"}, order))
    assert order == ShardOrder(0, tuple(range(2 * DEATHS)))


class Given(Worker):
    """Notes what it is sent."""

    def __init__(self, *hand: ShardOrder) -> None:
        super().__init__(0, "cpu", cast(Any, None), hand={order.number: order for order in hand})
        self.sent: list[ShardOrder] = []

    def send(self, line: bytes) -> None:
        self.sent.append(ShardOrder.from_line(line))


ALONE = ShardOrder(9, (1,))


@pytest.mark.parametrize(
    ("hand", "waiting", "orders", "given"),
    [
        # Three: one is committed, one explained, one fetched.
        ([], [], [1, 2, 3, 4], [ShardOrder(1), ShardOrder(2), ShardOrder(3)]),
        ([ShardOrder(0)], [], [1, 2, 3], [ShardOrder(1), ShardOrder(2)]),
        ([ShardOrder(0), ShardOrder(1), ShardOrder(2)], [], [3], []),
        ([], [], [], []),
        ([], [ShardOrder(8)], [1, 2, 3], [ShardOrder(8), ShardOrder(1), ShardOrder(2)]),
        # A shard with pictures that are done alone comes alone.
        ([], [ALONE], [1, 2], [ALONE]),
        ([], [ALONE, ShardOrder(8)], [1], [ALONE]),
        ([ShardOrder(0)], [ALONE], [1, 2], []),
        ([ALONE], [ShardOrder(8)], [1, 2], []),
        ([], [ShardOrder(8), ALONE], [1], [ShardOrder(8)]),
        # One that has had its pictures blamed is as any other.
        (
            [],
            [ShardOrder(8, (), (Blame(1, "decode", "SIGSEGV"),))],
            [1],
            [ShardOrder(8, (), (Blame(1, "decode", "SIGSEGV"),)), ShardOrder(1)],
        ),
    ],
)
def test_what_a_worker_is_given(
    hand: list[ShardOrder], waiting: list[ShardOrder], orders: list[int], given: list[ShardOrder]
) -> None:
    worker, left = Given(*hand), [*waiting]
    numbers = iter(orders)
    _give(worker, left, map(ShardOrder, numbers))
    assert worker.sent == given
    assert [*worker.hand.values()] == [*hand, *given]
    everything = [*waiting, *map(ShardOrder, orders)]
    assert [*left, *map(ShardOrder, numbers)] == [each for each in everything if each not in given]


@pytest.mark.parametrize(
    ("count", "theirs", "threads"),
    [
        (1, None, None),
        (2, None, "4"),
        (3, None, "2"),
        (99, None, "1"),
        (2, "3", "3"),
        (1, "3", "3"),
    ],
)
def test_the_environment_of_a_worker(
    count: int, theirs: str | None, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    monkeypatch.setenv("SOMETHING", "else")
    for name in SECRET_VARIABLES:
        monkeypatch.setenv(name, "secret")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if theirs:
        monkeypatch.setenv("OMP_NUM_THREADS", theirs)
    found = environment(FOLDER, count)
    assert found["PYTHONPATH"] == f"/archive{os.pathsep}{PROJECT}"
    assert found["SOMETHING"] == "else"
    assert not {"WHYBOX_SIGNING_KEY", "WHYBOX_SIGNING_PASSPHRASE"} & found.keys()
    assert found["PYTHONDONTWRITEBYTECODE"] == "1"
    assert found.get("OMP_NUM_THREADS") == threads


def process(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_a_worker_that_died_before_it_was_told_can_be_ended() -> None:
    child = process("")
    child.wait()
    worker = Worker(0, "cpu", child)
    worker.send(b"an order\n")
    end(child)
    assert child.returncode == 0
    assert child.stdin is not None
    assert child.stdin.closed


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def stubborn() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that do not end when they are told to."""
    children = [process(STUBBORN) for _ in range(6)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    yield children
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_workers_that_do_not_end_are_killed_together(
    stubborn: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM is to end a run within ten seconds, however many workers it has."""
    monkeypatch.setattr(workers, "SECONDS_TO_END", 0.5)
    local = pool()
    local._workers = [Worker(number, "cpu", child) for number, child in enumerate(stubborn)]
    started = time.monotonic()
    local.__exit__()
    assert time.monotonic() - started < 0.5 * len(stubborn) - 0.5
    assert [child.returncode for child in stubborn] == [-signal.SIGKILL] * len(stubborn)


def test_a_worker_that_is_killed_once_is_replaced(tmp_path: Path) -> None:
    hooks = """
import os, pathlib

def explain(grey):
    if grey == 25 and not pathlib.Path({flag!r}).exists():  # of ok15
        pathlib.Path({flag!r}).touch()
        os.kill(os.getpid(), 9)
"""
    plain = write_archive(tmp_path / "plain.mar")
    archive = write_archive(tmp_path / "once.mar", hooks.format(flag=str(tmp_path / "flag")))
    put(str(tmp_path / "in"), {f"{number:02d}.jpg": b"ok%d" % number for number in range(24)})
    source, output = str(tmp_path / "in"), str(tmp_path / "out")
    assert main(command(archive, source, output, "--shard-size", "8")) == 0
    assert (tmp_path / "flag").exists()
    assert main(command(plain, source, str(tmp_path / "plain"), "--shard-size", "8")) == 0
    assert tables(output) == tables(str(tmp_path / "plain"))


@pytest.mark.timeout(60)
def test_a_shard_that_cannot_be_committed_ends_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The last of those ordered: its worker has nothing else to do but to wait for orders."""
    archive = write_archive(tmp_path / "stub.mar")
    put(str(tmp_path / "in"), {"a.jpg": b"ok1"})
    put(str(tmp_path / "out"), {"shards/00000/stats.json/in": b"the way"})
    assert main(command(archive, str(tmp_path / "in"), str(tmp_path / "out"))) == 2
    assert "stats.json cannot be written" in capfd.readouterr().err


@pytest.mark.full
def test_pictures_far_apart_that_kill_their_process_are_all_found(tmp_path: Path) -> None:
    bad = [10, 60, 110, 160]
    hooks = f"""
import ctypes

def decode(data):
    if data in {[b"ok%d" % number for number in bad]}:
        ctypes.string_at(0)
"""
    archive = write_archive(tmp_path / "kills.mar", hooks)
    put(str(tmp_path / "in"), {f"{number:03d}.jpg": b"ok%d" % number for number in range(180)})
    assert main(command(archive, str(tmp_path / "in"), str(tmp_path / "out"))) == 3
    failures = rows(str(tmp_path / "out"), "failures.parquet")
    assert [row["key"] for row in failures] == [f"{number:03d}.jpg" for number in bad]

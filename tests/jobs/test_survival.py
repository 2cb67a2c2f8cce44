"""What a run survives, with the archive stub: kills, signals, pictures that end their process, a
second run beside it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from archives.stores.opening import open_store
from jobs.__main__ import main
from jobs.worker.commit import read_stats
from tests.conftest import put
from tests.jobs.archive_stub import write_archive
from tests.jobs.conftest import rows

# Some milliseconds a picture, so that a kill has something to hit.
SLOW = """
import time

def explain(grey):
    time.sleep({seconds})
"""
KILLS = """
import ctypes, os, signal

def {hook}(what):
    if what == {what!r}:
        ctypes.string_at(0) if "{signal}" == "SIGSEGV" else os.kill(os.getpid(), signal.{signal})
"""
TABLES = ("detections.parquet", "heatmaps.npz", "failures.parquet")


def pictures(count: int) -> dict[str, bytes]:
    """Every seventh is none."""
    return {
        f"{number // 100}/{number:04d}.jpg": b"no" if number % 7 == 3 else b"ok%d" % number
        for number in range(count)
    }


def command(archive: Path, source: str, output: str, *more: str) -> list[str]:
    places = ["--archive", str(archive), "--input", source, "--output", output]
    return ["explain", *places, "--batch-size", "2", "--no-pictures", *more]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def tables(output: str) -> Mapping[str, bytes]:
    """Everything of a run but its times."""
    store = open_store(output)
    return {
        each.key: store.read(each.key) for each in store.entries() if not each.key.endswith(".json")
    }


def stats(output: str) -> list[dict[str, object]]:
    store = open_store(output)
    count = json.loads(store.read("run.json"))["counts"]["shards"]
    found = [read_stats(store, number) or {} for number in range(count)]
    return [{name: each[name] for name in each if name != "seconds"} for each in found]


def killed_and_resumed(folder: Path, count: int, kills: int, seconds: float, *more: str) -> None:
    """Kills a run `kills` times at random moments; in the end it equals an undisturbed one."""
    put(str(folder / "in"), pictures(count))
    archive = write_archive(folder / "slow.mar", SLOW.format(seconds=seconds))
    whole, broken = str(folder / "whole"), str(folder / "broken")
    assert main(command(archive, str(folder / "in"), whole, *more)) == 3
    draw = random.Random(5)
    done = 0
    for _ in range(kills):
        run = start(command(archive, str(folder / "in"), broken, *more))
        time.sleep(draw.uniform(0.3, 2.5))
        workers = psutil.Process(run.pid).children(recursive=True)
        victim = draw.choice([psutil.Process(run.pid), *workers])
        ended = run.poll() is not None
        victim.kill() if not ended and victim.pid == run.pid else run.kill()
        run.communicate()
        psutil.wait_procs(workers, timeout=20)
        done += ended
    assert main(command(archive, str(folder / "in"), broken, *more)) == 3
    assert tables(broken) == tables(whole)
    assert stats(broken) == stats(whole)
    identities = [(row["key"], row["index"]) for row in rows(broken)]
    assert len(set(identities)) == len(identities)
    assert done < kills


def test_a_run_that_is_killed_equals_one_that_is_not(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, 60, 3, 0.03, "--shard-size", "7")


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_a_run_that_is_killed_50_times_equals_one_that_is_not(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, 1000, 50, 0.05, "--shard-size", "16", "--workers", "2")


@pytest.mark.parametrize(
    ("hook", "what", "number", "stage"),
    [
        ("decode", b"ok9", "SIGSEGV", "decode"),
        ("explain", 85, "SIGKILL", "explain"),  # what crc32 makes of the bytes below
    ],
)
def test_a_picture_that_kills_its_process_is_recorded_and_skipped(
    hook: str, what: bytes | int, number: str, stage: str, tmp_path: Path
) -> None:
    files = {f"{name:02d}.jpg": b"ok%d" % name for name in range(20)}
    if hook == "explain":
        files["09.jpg"] = b"ok" + b"kill" * 8
    put(str(tmp_path / "in"), files)
    plain = write_archive(tmp_path / "plain.mar")
    hooks = KILLS.format(hook=hook, what=what, signal=number)
    archive = write_archive(tmp_path / "kills.mar", hooks)
    source, output = str(tmp_path / "in"), str(tmp_path / "out")
    assert main(command(archive, source, output, "--shard-size", "4")) == 3
    assert main(command(plain, source, str(tmp_path / "plain"), "--shard-size", "4")) == 0
    [failure] = rows(output, "failures.parquet")
    assert failure == {
        "key": "09.jpg",
        "stage": stage,
        "error": number,
        "message": f"it ended the process twice ({number}), once with nothing else in hand",
    }
    expected = [row for row in rows(str(tmp_path / "plain")) if row["key"] != "09.jpg"]
    assert rows(output) == expected


def test_an_archive_that_kills_every_worker_ends_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(str(tmp_path / "in"), {"a.jpg": b"ok"})
    hooks = "import os\n\ndef load(path):\n    os.kill(os.getpid(), 9)"
    archive = write_archive(tmp_path / "dead.mar", hooks)
    assert main(command(archive, str(tmp_path / "in"), str(tmp_path / "out"))) == 137
    assert "the worker was killed (SIGKILL)" in capfd.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_busy_run_within_ten_seconds(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    # A detector deep in its own code does not see a signal.
    hooks = """
import ctypes, pathlib

def explain(grey):
    pathlib.Path({flag!r}).touch()
    ctypes.PyDLL(None).sleep(60)
"""
    flag = tmp_path / "flag"
    archive = write_archive(tmp_path / "deep.mar", hooks.format(flag=str(flag)))
    put(str(tmp_path / "in"), {"a.jpg": b"ok"})
    run = start(command(archive, str(tmp_path / "in"), str(tmp_path / "out")))
    while not flag.exists():
        time.sleep(0.05)
    children = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(number)
    _, said = run.communicate(timeout=10)
    assert run.returncode == code
    assert said.decode().count("jobs: interrupted") == 1
    assert not [each for each in children if each.is_running()]
    assert not (tmp_path / "out/leases/all.json").exists()


def test_a_second_run_on_the_same_output_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flag = tmp_path / "flag"
    hooks = f"""
import pathlib, time

def decode(data):
    while pathlib.Path({str(flag)!r}).exists():
        time.sleep(0.02)
"""
    flag.touch()
    archive = write_archive(tmp_path / "waits.mar", hooks)
    put(str(tmp_path / "in"), {"a.jpg": b"ok", "b.jpg": b"ok2"})
    arguments = command(archive, str(tmp_path / "in"), str(tmp_path / "out"))
    first = start(arguments)
    while not (tmp_path / "out/run.json").exists():
        time.sleep(0.02)
    assert main(arguments) == 6
    said = capfd.readouterr().err
    assert f"process {first.pid}, at work since" in said
    assert said.count("\n") == 1
    flag.unlink()
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert os.listdir(tmp_path / "out/leases") == []

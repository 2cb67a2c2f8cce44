"""The whole command: a parent that trusts nothing, and a worker that runs the archive's code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

import psutil
import pytest
import requests

from archives.names import read_reference
from archives.registry.registry import Promotion, Registry
from archives.stores.opening import open_store
from handlers.manifest import FORMAT_VERSION
from jobs.__main__ import main
from jobs.tables import read_rows
from tests.conftest import put
from tests.jobs.archive_stub import MESSAGE, write_archive

# Waits at the second picture, once the first is committed, until it is killed or FLAG is gone.
WAIT = """
import os, pathlib, threading, time

def decode(data):
    if data == b"wait" and pathlib.Path({flag!r}).exists():
        while not pathlib.Path({stats!r}).exists():
            time.sleep(0.01)
        print("waiting", os.getpid(), flush=True)
        threading.Event().wait()
"""


LONG = 5000 * "x"
SWEEP = ["sweep", "--input", "a.png", "--output", "b.png", "--layers", "roi"]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "stub.mar")


@pytest.fixture
def source(tmp_path: Path) -> str:
    put(str(tmp_path / "in"), {"a.jpg": b"first", "b.jpg": b"wait", "c.jpg": b"last"})
    return str(tmp_path / "in")


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files of this test's processes go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def explain(archive: Path | str, source: str, output: str, *more: str) -> int:
    return main(
        ["explain", "--archive", str(archive), "--input", source, "--output", output, *more]
    )


def failed(output: str, shards: int) -> list[tuple[str, str]]:
    store = open_store(output)
    tables = [store.read(f"shards/{number:05d}/failures.parquet") for number in range(shards)]
    return [(row["key"], row["message"]) for table in tables for row in read_rows(table)]


def test_the_archives_own_code_runs_and_nothing_of_it_stays(
    archive: Path, source: str, tmp_path: Path, private: Path
) -> None:
    output = str(tmp_path / "out")
    assert explain(archive, source, output) == 3
    assert failed(output, 1) == [(key, MESSAGE) for key in ("a.jpg", "b.jpg", "c.jpg")]
    assert list(private.iterdir()) == []


def test_everything_in_a_bucket(archive: Path, source: str, bucket: str) -> None:
    put(bucket, {"store/stub.mar": archive.read_bytes(), "in/a.jpg": b"first"})
    assert explain(f"{bucket}/store/stub.mar", f"{bucket}/in", f"{bucket}/out") == 3
    assert failed(f"{bucket}/out", 1) == [("a.jpg", MESSAGE)]
    assert json.loads(open_store(f"{bucket}/out").read("run.json"))["status"] == "done"


@pytest.mark.parametrize("which", ["stub@production", "stub@1.0"])
def test_an_archive_of_a_registry(
    which: str, archive: Path, source: str, bucket: str, tmp_path: Path, private: Path
) -> None:
    registry = Registry.open(f"{bucket}/registry")
    registry.publish(archive)
    registry.promote(Promotion(read_reference("stub@1.0"), "production", "me", "why"))
    output = str(tmp_path / "out")
    assert explain(which, source, output, "--registry", f"{bucket}/registry") == 3
    record = json.loads(open_store(output).read("run.json"))
    digest = registry.find("stub", "1.0").manifest.digest
    assert (record["archive"]["uri"], record["archive"]["digest"]) == (which, digest)
    assert list(private.iterdir()) == []


def test_a_tampered_archive_of_a_registry(
    archive: Path, source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "registry")
    Registry.open(place).publish(archive)
    tampered(tmp_path / "registry/stub/1.0/stub.mar")
    assert explain("stub@1.0", source, str(tmp_path / "out"), "--registry", place) == 5
    assert_one_line(capfd.readouterr().err, f"{place}/stub/1.0/stub.mar was tampered with")


def test_the_archives_own_code_prints_the_model(
    archive: Path, private: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", "--archive", str(archive), "--preview-model", "--target", "box"]
    assert main(command) == 0
    assert capfd.readouterr().out == "the archive's own modules for box\n"
    assert list(private.iterdir()) == []


@pytest.mark.parametrize("command", [["explain", "--preview-model"], SWEEP])
def test_no_command_runs_a_tampered_archive(
    command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = tampered(tmp_path / "bad.mar")
    assert main([*command, "--archive", str(archive)]) == 5
    assert_one_line(capfd.readouterr().err, "tampered")


def tampered(path: Path) -> Path:
    data = write_archive(path).read_bytes()
    path.write_bytes(data.replace(b"the archive's own", b"some other body's"))
    return path


def refused_archive(kind: str, path: Path) -> Path:
    if kind == "tampered":
        return tampered(path)
    if kind == "newer":
        return write_archive(path, newer=1)
    if kind == "older":
        return write_archive(path, newer=-1)
    if kind == "without code":
        return write_archive(path, with_code=False)
    path.write_bytes(b"no zip")
    return path


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("tampered", 5, "tampered"),
        ("without code", 5, "the archive brings no code of its own"),
        ("newer", 2, f"this Whybox reads up to {FORMAT_VERSION}; update Whybox"),
        ("older", 2, "its code is older than these jobs"),
        ("no zip", 2, "is not a .mar archive"),
    ],
)
def test_archives_that_are_refused(
    kind: str,
    code: int,
    message: str,
    tmp_path: Path,
    source: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = refused_archive(kind, tmp_path / "bad.mar")
    assert explain(path, source, str(tmp_path / "out")) == code
    assert_one_line(capfd.readouterr().err, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "output", "more", "message"),
    [
        ("in", "out", ["--method", "none"], "method: got 'none'; allowed: stub"),
        ("none", "out", [], "none is not there"),
        ("stub.mar.d", "out", [], "no pictures in"),
        ("in", "stub.mar/out", [], "cannot be written: Not a directory"),
        ("in", "ftp://out", [], "other schemes are unknown"),
        (LONG, "out", [], "cannot be read: File name too long"),
        ("in", LONG, [], "cannot be read: File name too long"),
        ("in", "/proc/nope", [], "cannot be written: No such file or directory"),
    ],
)
def test_wrong_usage_is_one_line_and_nothing_is_written(
    source: str,
    output: str,
    more: list[str],
    message: str,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    put("in", {"a.jpg": b""})
    (tmp_path / "stub.mar.d").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert explain(archive, source, output, *more) == 2
    assert_one_line(capfd.readouterr().err, message)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("wrong", ["input", "output"])
def test_a_bucket_that_is_not_there(
    wrong: str, archive: Path, bucket: str, source: str, capfd: pytest.CaptureFixture[str]
) -> None:
    missing = "s3://no-such-bucket/x"
    places = (missing, bucket) if wrong == "input" else (source, missing)
    assert explain(archive, *places) == 2
    assert_one_line(capfd.readouterr().err, "there is no bucket 'no-such-bucket'")
    assert list(open_store(bucket).entries()) == []


def test_wrong_credentials(
    archive: Path, bucket: str, s3_endpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    put(bucket, {"in/a.jpg": b""})
    reset = f"{s3_endpoint}/moto-api/reset-auth"
    requests.post(reset, data="0", timeout=10).raise_for_status()
    try:
        assert explain(archive, f"{bucket}/in", f"{bucket}/out") == 2
    finally:
        requests.post(reset, data="inf", timeout=10).raise_for_status()
    assert_one_line(capfd.readouterr().err, "the credentials are wrong")


def test_a_store_that_is_down(
    archive: Path, aws: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    assert explain(archive, "s3://bucket/in", str(tmp_path / "out")) == 75
    assert_one_line(capfd.readouterr().err, "does not answer")


def test_another_job_in_the_output(
    archive: Path, source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "out")
    explain(archive, source, output)
    capfd.readouterr()
    assert explain(archive, source, output, "--shard-size", "2") == 6
    assert_one_line(capfd.readouterr().err, "shard_size was 256, now 2")


def test_a_bug_shows_its_traceback(
    source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = write_archive(tmp_path / "bug.mar", hooks="def load(path):\n    1 / 0")
    assert explain(archive, source, str(tmp_path / "out")) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("number", "whom", "code"),
    [
        (signal.SIGINT, "parent", 130),
        (signal.SIGTERM, "parent", 143),
        (signal.SIGKILL, "parent", -signal.SIGKILL),
    ],
)
def test_a_run_that_was_ended_is_taken_up_again(
    number: signal.Signals, whom: str, code: int, source: str, tmp_path: Path, private: Path
) -> None:
    output, flag = tmp_path / "out", tmp_path / "flag"
    stats = output / "shards/00000/stats.json"
    hooks = WAIT.format(flag=str(flag), stats=str(stats))
    archive = write_archive(tmp_path / "wait.mar", hooks)
    flag.touch()
    command = [sys.executable, "-m", "jobs", "explain", "--shard-size", "1"]
    command += ["--archive", str(archive), "--input", source, "--output", str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        worker = psutil.Process(int(line(parent.stdout).split()[1]))
        os.kill(parent.pid if whom == "parent" else worker.pid, number)
        assert parent.wait(timeout=30) == code
        psutil.wait_procs([worker], timeout=30)
        assert not worker.is_running()
        assert parent.stderr is not None
        assert_no_traceback(parent.stderr.read().decode())
    assert list(private.iterdir()) == []
    committed = stats.stat().st_mtime_ns
    assert [path.name for path in output.glob("shards/*/stats.json")] == ["stats.json"]
    flag.unlink()
    assert explain(archive, source, str(output), "--shard-size", "1") == 3
    assert stats.stat().st_mtime_ns == committed
    assert failed(str(output), 3) == [(key, MESSAGE) for key in ("a.jpg", "b.jpg", "c.jpg")]


def line(pipe: IO[bytes] | None) -> str:
    assert pipe is not None
    return pipe.readline().decode()


def assert_one_line(error: str, message: str) -> None:
    assert message in error
    assert error.startswith("jobs: ")
    assert error.count("\n") == 1
    assert len(error) < 500


def assert_no_traceback(error: str) -> None:
    assert "Traceback" not in error

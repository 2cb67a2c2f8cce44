"""The Ray engine on loopback: the local engine's tables, whatever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from archives.stores.opening import open_store
from jobs.__main__ import main
from jobs.engines.ray_engine import passed_on
from tests.conftest import put
from tests.jobs.archive_stub import write_archive
from tests.jobs.ray_nodes import Nodes, nodes

PICTURES = 32
ONE = {"num_cpus": 1}
# A process is killed once, at one picture; later pictures wait while GATE is there.
HOOKS = """
import os, pathlib, signal, time

def decode(data):
    number = int(data.split()[1])
    folder = pathlib.Path({folder!r})
    for name, pid in (("process", os.getpid()), ("actor", os.getppid())):
        for how in (signal.SIGKILL, signal.SIGTERM):
            told = folder / f"{{name}} {{how.name}}"
            if number == 13 and told.exists():
                if not (folder / "again").exists():
                    told.unlink()
                os.kill(pid, how)
                time.sleep(60)
    if number == 22 and (folder / "picture").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if number >= 10 and (folder / "gate").exists():
        (folder / "waiting" / str(os.getpid())).touch()
        while (folder / "gate").exists():
            time.sleep(0.01)
"""
LOAD_FAILS = """
def load(path):
    raise RuntimeError("no such layer")
"""
SAYS_DEVICE = """
import json, os, pathlib, sys, time

FOLDER = pathlib.Path({folder!r})

def load(path):
    device = json.loads(pathlib.Path(sys.argv[1]).read_text())["options"]["device"]
    (FOLDER / f"{{device}} {{os.environ['CUDA_VISIBLE_DEVICES']}}").touch()

def decode(data):
    while len(list(FOLDER.glob("cuda*"))) < 2:
        time.sleep(0.01)
"""


@dataclass
class Place:
    """A folder with an archive and pictures, and jobs on them.

    mark: in the environment of every process that a job has started.
    """

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def prepare(self, hooks: str = HOOKS) -> None:
        pictures = {
            f"{number:02}.jpg": b"%s %d" % (b"no" if number % 5 == 0 else b"ok", number)
            for number in range(PICTURES)
        }
        put(str(self.folder / "in"), pictures)
        write_archive(self.folder / "stub.mar", hooks.format(folder=str(self.folder)))
        (self.folder / "waiting").mkdir()

    def arguments(self, output: str, *more: str) -> list[str]:
        given = {"--archive": "stub.mar", "--input": "in", "--output": output}
        places = [part for name, path in given.items() for part in (name, str(self.folder / path))]
        return [
            "explain",
            *places,
            "--shard-size",
            "4",
            "--batch-size",
            "2",
            "--no-pictures",
            *more,
        ]

    def start(
        self, *more: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """The job with Ray."""
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", *self.arguments("ray", "--engine", "ray", *more)],
            env={**os.environ, **(environment or {}), "MARK": self.mark},
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *more: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """The exit code and stderr of the job with Ray, of which nothing is left behind."""
        process = self.start(*more, environment=environment)
        _, told = process.communicate(timeout=120)
        self.wait(lambda: not self.processes())
        return process.returncode, told

    def assert_as_local(self, output: str = "") -> None:
        """What the job with Ray has left is what the local engine gives."""
        assert main(self.arguments("local")) == 3
        local = tables(str(self.folder / "local"))
        assert len(local) == 3 * PICTURES // 4
        assert tables(output or str(self.folder / "ray")) == local

    def processes(self) -> list[psutil.Process]:
        """All that a job has started and that still run."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("MARK") == self.mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue  # another's, or gone
        return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]

    def workers(self) -> list[int]:
        """Processes that hold a picture and wait."""
        return [int(each.name) for each in (self.folder / "waiting").iterdir()]

    def wait(self, until: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def tables(output: str) -> dict[str, bytes]:
    """Everything but what times are in."""
    store = open_store(output)
    keys = [each.key for each in store.entries("shards/")]
    return {key: store.read(key) for key in keys if key.endswith((".npz", ".parquet"))}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    made.prepare()
    yield made
    for process in made.processes():
        process.kill()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(ONE, ONE) as made:
        yield made


def test_tables_are_the_local_engines(place: Place) -> None:
    code, told = place.run("--workers", "2")
    # Beside that it waits, where the machine is busy, only that pictures failed.
    lines = [each for each in told.splitlines() if not each.startswith("jobs: waiting for a ")]
    assert (code, len(lines)) == (3, 1), told
    place.assert_as_local()


@pytest.mark.full
def test_a_cluster_without_gpus_is_told_of_at_once(place: Place) -> None:
    code, told = place.run("--device", "cuda")
    assert code == 2
    assert "takes 1 GPU for 1 worker; the Ray cluster of this machine alone (1 node, " in told
    assert told.endswith(" has 0\n")


def test_what_is_passed_on_to_other_machines() -> None:
    given = {"AWS_ACCESS_KEY_ID": "a", "WHYBOX_S3_CONNECTIONS": "8", "OMP_WAIT_POLICY": "passive"}
    own = {"AWS_PROFILE": "me", "AWS_CONFIG_FILE": "f", "AWS_CA_BUNDLE": "c", "HOME": "h"}
    assert passed_on({**given, **own}) == given


@pytest.mark.full
@pytest.mark.parametrize(
    ("killed", "lost"),
    [
        ("process SIGKILL", False),
        ("process SIGTERM", True),
        ("actor SIGKILL", True),
        ("actor SIGTERM", True),
        ("picture", False),
    ],
)
def test_something_is_killed(killed: str, lost: bool, place: Place, cluster: Nodes) -> None:
    (place.folder / killed).touch()
    code, told = place.run("--workers", "2", environment=cluster.environment)
    assert code == 3
    assert ("a worker was lost" in told) == lost
    place.assert_as_local()


@pytest.mark.full
def test_a_shard_that_loses_every_worker_is_given_up(place: Place, cluster: Nodes) -> None:
    for name in ("actor SIGKILL", "again"):
        (place.folder / name).touch()
    code, told = place.run("--workers", "2", environment=cluster.environment)
    assert (code, told.count("a worker was lost")) == (75, 3)
    assert "was in the hands of 3 workers that were lost" in told
    (place.folder / "actor SIGKILL").unlink()
    assert place.run(environment=cluster.environment)[0] == 3
    place.assert_as_local()


@pytest.mark.full
def test_a_node_is_killed_while_shards_are_done(place: Place) -> None:
    gate = place.folder / "gate"
    gate.touch()
    with nodes(ONE, ONE) as cluster:
        job = place.start("--workers", "2", environment=cluster.environment)
        place.wait(lambda: len(place.workers()) == 2)
        assert sorted(cluster.holds(1, pid) for pid in place.workers()) == [False, True]
        cluster.kill(1)
        gate.unlink()
        _, told = job.communicate(timeout=120)
    assert job.returncode == 3
    assert "a worker was lost" in told
    place.assert_as_local()


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("own", [True, False])
def test_the_job_is_ended(number: signal.Signals, own: bool, place: Place, cluster: Nodes) -> None:
    gate = place.folder / "gate"
    gate.touch()
    job = place.start("--workers", "2", environment={} if own else cluster.environment)
    place.wait(lambda: len(place.workers()) == 2)
    started = time.monotonic()
    job.send_signal(number)
    job.communicate()
    assert job.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    place.wait(lambda: not any(map(psutil.pid_exists, place.workers())))
    assert time.monotonic() - started < 10
    place.wait(lambda: not place.processes())
    gate.unlink()
    assert place.run("--workers", "2", environment=cluster.environment)[0] == 3
    place.assert_as_local()


@pytest.mark.full
def test_what_a_worker_says_is_the_jobs_answer(place: Place, cluster: Nodes) -> None:
    code, told = place.run("--method", "odam", environment=cluster.environment)
    assert (code, told) == (2, "jobs: method: got 'odam'; allowed: stub\n")
    place.folder.joinpath("in").rename(place.folder / "elsewhere")
    write_archive(place.folder / "stub.mar", LOAD_FAILS)
    put(str(place.folder / "in"), {"a.jpg": b"ok 1"})
    code, told = place.run(environment=cluster.environment)
    assert code == 1
    assert told.endswith("RuntimeError: no such layer\n")


@pytest.mark.full
def test_each_worker_has_a_gpu_of_its_own(place: Place) -> None:
    write_archive(place.folder / "stub.mar", SAYS_DEVICE.format(folder=str(place.folder)))
    with nodes({"num_cpus": 1}, {"num_cpus": 0, "num_gpus": 2}) as cluster:
        environment = cluster.environment
        code, told = place.run("--device", "cuda", "--workers", "3", environment=environment)
        assert code == 2
        assert "--engine ray takes 3 GPUs for 3 workers; the Ray cluster at 127.0.0.1:" in told
        assert told.endswith(" (2 nodes, 1 CPU) has 2\n")
        assert place.run("--device", "cuda:1", environment=environment)[0] == 3
    assert sorted(each.name for each in place.folder.glob("cuda*")) == ["cuda 0", "cuda 1"]


@pytest.mark.full
def test_dry_run(place: Place, cluster: Nodes) -> None:
    assert place.run("--dry-run", environment=cluster.environment) == (0, "")
    assert not (place.folder / "ray").exists()


@pytest.mark.full
def test_credentials_reach_the_workers_and_no_log(
    place: Place, cluster: Nodes, bucket: str, aws: pytest.MonkeyPatch
) -> None:
    secret = uuid.uuid4().hex  # not in the environment that the cluster was started with
    aws.setenv("AWS_SECRET_ACCESS_KEY", secret)
    code, _ = place.run("--output", f"{bucket}/out", environment=cluster.environment)
    assert code == 3
    place.assert_as_local(f"{bucket}/out")
    logs = [each.read_bytes() for each in cluster.logs.rglob("*") if each.is_file()]
    assert any(b"NodeWorker" in each for each in logs)
    assert not any(secret.encode() in each for each in logs)

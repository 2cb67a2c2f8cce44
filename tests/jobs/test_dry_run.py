"""What a dry run says, and that it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from archives.errors import ConflictError
from archives.stores.opening import open_store
from jobs.__main__ import main
from jobs.dry_run import dry_run
from jobs.inputs.listing import list_input
from jobs.options import JobOptions
from jobs.worker.messages import Job as JobMessage
from jobs.worker.messages import Sampled
from tests.conftest import put
from tests.jobs.archive_stub import write_archive
from tests.jobs.conftest import MakeJob, picture_bytes

CURSED = b"ok117"  # which the stub decodes to a grey of 153
PICTURES = {f"{number}.png": picture_bytes(grey=10 * number) for number in range(8)}


def everything(place: str) -> dict[str, bytes]:
    store = open_store(place)
    return {each.key: store.read(each.key) for each in store.entries()}


@pytest.mark.parametrize(
    ("options", "trial", "guess"),
    [
        # two seconds for each trial, see ThisProcess
        ({}, "4 of them took 2.0 a second", "4 s with 1 worker"),
        ({"workers": 2}, "4 of them took 2.0 a second", "2 s with 2 workers"),
        ({"batch_size": 1}, "2 of them took 1.0 a second", "8 s with 1 worker"),
        ({"batch_size": 64}, "8 of them took 4.0 a second", "2 s with 1 worker"),
    ],
)
def test_it_counts_and_guesses(
    options: dict[str, Any],
    trial: str,
    guess: str,
    tmp_path: Path,
    make_job: MakeJob,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(str(tmp_path / "in"), PICTURES)
    job = make_job(str(tmp_path / "in"), **options)
    assert job.run(dry_run=True) == 0
    assert capsys.readouterr().out == (
        "8 pictures, 0.0 MB, in 3 shards.\n"
        f"The first {trial}, once loaded: about {guess}, where the store keeps up.\n"
        f"Nothing was written to {job.output}.\n"
    )


class Asked:
    """An engine that notes its trial; none of its pictures can be read."""

    workers = 1

    def try_out(self, job: JobMessage) -> Sampled:
        self.job = job
        return Sampled(0, 0.0)


def test_the_first_pictures_are_tried_and_there_may_be_no_guess(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = str(tmp_path / "in"), str(tmp_path / "out")
    put(source, {f"{number}.png": b"x" * 500_000 for number in range(3)})
    options = JobOptions("demo.mar", (source,), output, batch_size=1, shard_size=2)
    engine = Asked()
    with list_input((source,), output) as listing:
        assert dry_run(options, listing, engine, open_store(output)) == 0
    trial = ("0.png", "1.png")
    assert engine.job == JobMessage(source, output, 3, 2, "none", trial=trial)
    assert capsys.readouterr().out == (
        "3 pictures, 1.5 MB, in 2 shards.\n"
        "None of the first 2 could be read, so there is no guess of the time.\n"
        f"Nothing was written to {output}.\n"
    )


def test_nothing_at_all_is_written(place: str, make_job: MakeJob) -> None:
    put(f"{place}/in", {"a.png": picture_bytes()})
    before = everything(place)
    job = make_job(f"{place}/in", f"{place}/out", overlays="all", coco=True)
    assert job.run(dry_run=True) == 0
    assert everything(place) == before


def test_a_run_that_is_there_stays_as_it_is(tmp_path: Path, make_job: MakeJob) -> None:
    put(str(tmp_path / "in"), PICTURES)
    job = make_job(str(tmp_path / "in"))
    assert job.run() == 0
    before = everything(job.output)
    assert job.run(dry_run=True, request={"method": "gradcam"}) == 0
    assert everything(job.output) == before


def test_what_stands_in_the_way_of_a_run_does_not_of_a_dry_one(
    tmp_path: Path, make_job: MakeJob
) -> None:
    put(str(tmp_path / "in"), PICTURES)
    job = make_job(str(tmp_path / "in"))
    put(job.output, {"run.json": b"not JSON"})
    with pytest.raises(ConflictError):
        job.run()
    assert job.run(dry_run=True) == 0


@pytest.mark.parametrize("more", [["--workers", "2"], []])
def test_a_real_worker_tries_what_it_can(
    more: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bad pictures, and those that a detector cannot explain, are rows of a run's failures."""
    hooks = """
import time

def explain(grey):
    time.sleep(0.05)  # until the second worker has started, too
    if grey == 153:
        raise ValueError("cursed")
"""
    archive = write_archive(tmp_path / "stub.mar", hooks)
    files = {f"{number:02d}.jpg": b"ok%d" % number for number in range(20)}
    put(str(tmp_path / "in"), files | {"00.jpg": b"no", "01.jpg": CURSED})
    places = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main(["explain", "--archive", str(archive), *places, "--dry-run", *more]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert said.out.startswith("20 pictures, 0.0 MB, in 1 shard.\nThe first 14 of them took ")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in", "stub.mar"]

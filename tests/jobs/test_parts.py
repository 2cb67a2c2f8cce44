"""A job in parts, for engines that only count, and the report that makes one run of them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from archives.errors import ConflictError
from archives.stores.opening import open_store
from jobs import run as run_module
from jobs.__main__ import main
from jobs.inputs.listing import Listing, list_input
from jobs.lease import Lease, holders
from jobs.names import REPORT
from tests.conftest import put, remove
from tests.jobs.archive_stub import write_archive
from tests.jobs.conftest import CURSED_WIDTH, MakeJob, picture_bytes
from tests.jobs.test_survival import command, pictures, start

PICTURES = {f"{number}.png": picture_bytes(grey=10 * number) for number in range(8)}


def tables(output: str) -> dict[str, bytes]:
    """All but what has times or names of places in it, and the report."""
    store = open_store(output)
    keys = [each.key for each in store.entries() if not each.key.startswith(REPORT)]
    return {key: store.read(key) for key in keys if not key.endswith(".json")}


def record(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(open_store(output).read("run.json"))
    del found["times"]
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 5])  # of three shards
def test_parts_and_their_report_equal_a_whole_run(
    count: int, tmp_path: Path, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(tmp_path / "in")
    put(source, PICTURES | {"5.png": picture_bytes(CURSED_WIDTH), "6.png": b"bad"})
    whole, parts = make_job(source, str(tmp_path / "a")), make_job(source, str(tmp_path / "b"))
    assert whole.run() == 3
    codes = [parts.run(shard=(index, count)) for index in reversed(range(count))]
    assert record(parts.output)["status"] == "running"
    assert parts.explainer.explained == whole.explainer.explained
    assert 3 in codes
    said = capsys.readouterr().out
    assert f"Once all parts are done: python -m jobs report {parts.output}\n" in said
    assert main(["report", parts.output]) == 3
    assert tables(parts.output) == tables(whole.output)
    assert open_store(parts.output).find(f"{REPORT}index.html")
    assert record(parts.output) == record(whole.output)
    assert record(parts.output)["counts"] == {
        "pictures": 8,
        "pictures_with_detections": 5,
        "detections": 10,
        "failures": 2,
        "shards": 3,
        "categories": {"cat": 5, "dog": 5},
    }
    assert holders(open_store(parts.output)) == []


def test_real_parts_are_counted_by_their_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(str(tmp_path / "in"), pictures(30))
    archive = write_archive(tmp_path / "stub.mar")
    source, whole, output = (str(tmp_path / name) for name in ("in", "whole", "parts"))
    assert main([*command(archive, source, whole, "--shard-size", "4"), "--coco"]) == 3
    for index in range(3):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        assert main(command(archive, source, output, "--shard-size", "4", "--shard", "/3")) == 3
        assert f"Part {index} of 3 is done: {(2, 3, 3)[index]} shards," in capsys.readouterr().out
    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    assert main(["report", output, "--coco"]) == 3
    assert tables(output) == tables(whole)
    assert record(output) == record(whole)
    results = [open_store(each).read("coco/results.json") for each in (whole, output)]
    assert results[0] == results[1]


def test_real_parts_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    put(str(tmp_path / "in"), pictures(24))
    archive = write_archive(tmp_path / "stub.mar")
    source, output = str(tmp_path / "in"), str(tmp_path / "out")
    arguments = [*command(archive, source, output, "--shard-size", "4"), "--shard"]
    parts = [start([*arguments, f"{index}/2"]) for index in range(2)]
    said = [part.communicate(timeout=100) for part in parts]
    assert [part.returncode for part in parts] == [3, 3], said
    assert main(["report", output]) == 3
    assert record(output)["counts"]["pictures"] == 24
    assert record(output)["counts"]["failures"] == 3


def test_parts_at_once_list_once(
    tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    source, output = str(tmp_path / "in"), str(tmp_path / "out")

    def counting(*places: Any) -> Listing:
        listed.append(places)
        return list_input(*places)

    monkeypatch.setattr(run_module, "list_input", counting)
    put(source, {f"{number}.png": picture_bytes() for number in range(4)})
    jobs = [make_job(source, output, shard=(index, 2), shard_size=1) for index in range(2)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda job: job.run(), jobs)) == [0, 0]
    assert len(listed) == 1
    assert [job.explainer.explained for job in jobs] == [2, 2]
    assert record(output)["counts"] == {"pictures": 4, "shards": 4}


def test_a_report_says_what_is_missing_and_changes_nothing(
    tmp_path: Path, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "there is no run in" in capsys.readouterr().err
    put(str(tmp_path / "in"), PICTURES)
    job = make_job(str(tmp_path / "in"))
    job.run(shard=(0, 3))
    before = record(job.output), tables(job.output)
    assert main(["report", job.output]) == 2
    said = "jobs: 2 of 3 shards are not done, the first is 1; run the job again, with the same"
    assert capsys.readouterr().err.startswith(said)
    assert (record(job.output), tables(job.output)) == before


def test_a_part_again_does_nothing(
    tmp_path: Path, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    put(str(tmp_path / "in"), PICTURES)
    job = make_job(str(tmp_path / "in"))
    assert job.run(shard=(1, 3)) == 0
    said, before = capsys.readouterr().out, [*open_store(job.output).entries("shards/")]
    assert said.startswith("Part 1 of 3 is done: 1 shard, 3 pictures, 6 boxes explained.")
    assert job.run(shard=(1, 3)) == 0
    assert capsys.readouterr().out == said
    assert [*open_store(job.output).entries("shards/")] == before  # their times, too
    assert job.explainer.explained == 3


@pytest.mark.parametrize(("other", "told"), [((0, 3), True), ((0, 2), True), ((1, 2), False)])
def test_parts_that_overlap_are_told(
    other: tuple[int, int], told: bool, tmp_path: Path, make_job: MakeJob
) -> None:
    put(str(tmp_path / "in"), PICTURES)
    job = make_job(str(tmp_path / "in"))
    with Lease(open_store(job.output), "0-of-2"):
        if told:
            with pytest.raises(ConflictError, match="at work on part 0-of-2 since"):
                job.run(shard=other)
        else:
            assert job.run(shard=other) == 0
        assert main(["report", job.output]) == 6
        with pytest.raises(ConflictError, match="at work on part 0-of-2 since"):
            job.run()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"shard_size": 4}, "shard_size was 3, now 4"),
        ({"request": {"method": "gradcam"}}, "method was 'odam', now 'gradcam'"),
        ({"manifest": "list.csv"}, "input"),
    ],
)
def test_a_part_of_another_job_is_told(
    changed: dict[str, Any], said: str, tmp_path: Path, make_job: MakeJob
) -> None:
    put(str(tmp_path / "in"), PICTURES)
    job = make_job(str(tmp_path / "in"))
    job.run(shard=(0, 2))
    before = open_store(job.output).read("run.json")
    with pytest.raises(ConflictError, match=said):
        job.run(shard=(1, 2), **changed)
    assert open_store(job.output).read("run.json") == before


def test_a_part_of_another_input_is_told(tmp_path: Path, make_job: MakeJob) -> None:
    """It does not list, so it would explain the first one's pictures under its own input's name."""
    for name in ("in", "other"):
        put(str(tmp_path / name), PICTURES)
    job = make_job(str(tmp_path / "in"))
    job.run(shard=(0, 2))
    before = open_store(job.output).read("run.json")
    job.source = str(tmp_path / "other")
    with pytest.raises(ConflictError, match="the input"):
        job.run(shard=(1, 2))
    assert open_store(job.output).read("run.json") == before


def test_a_part_that_comes_to_a_finished_run_does_nothing(
    tmp_path: Path, make_job: MakeJob
) -> None:
    put(str(tmp_path / "in"), PICTURES)
    job = make_job(str(tmp_path / "in"))
    job.run()
    before = open_store(job.output).read("run.json")
    assert job.run(shard=(0, 2)) == 0
    assert open_store(job.output).read("run.json") == before
    assert job.explainer.explained == len(PICTURES)


def test_shards_without_a_record_are_not_taken_for_this_runs_own(
    tmp_path: Path, make_job: MakeJob
) -> None:
    """Their record may have been removed as the message about a broken one advises."""
    put(str(tmp_path / "in"), PICTURES)
    job = make_job(str(tmp_path / "in"))
    job.run()
    remove(job.output, "run.json")
    before = tables(job.output)
    for options in ({}, {"shard": (0, 2)}):
        with pytest.raises(ConflictError, match=r"run\.json"):
            job.run(request={"method": "gradcam"}, **options)
    assert tables(job.output) == before

"""The command line, in the process that a person starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import main, parse
from jobs.options import ArchiveFacts, JobOptions, WorkOrder

NEEDED = ["--archive", "a.mar", "--input", "in", "--output", "out"]


def test_defaults() -> None:
    assert parse(["explain", *NEEDED]) == JobOptions(archive="a.mar", inputs=("in",), output="out")


def test_every_option_reaches_the_worker_unchanged() -> None:
    text = """explain --archive s3://b/a.mar --input a.jpg b.jpg --input c --output s3://b/o
        --method odam --target box --layer roi --category dog --score-threshold 0.25
        --max-detections 7 --batch-size 4 --device cuda:1 --precision bf16 --shard-size 9
        --overlays all --engine local"""
    options = parse(text.split())
    assert options == JobOptions(
        archive="s3://b/a.mar",
        inputs=("a.jpg", "b.jpg", "c"),
        output="s3://b/o",
        request={
            "method": "odam",
            "target": "box",
            "layer": "roi",
            "category": "dog",
            "score_threshold": 0.25,
            "max_detections": 7,
        },
        batch_size=4,
        device="cuda:1",
        precision="bf16",
        shard_size=9,
        overlays="all",
    )
    order = WorkOrder(options, ArchiveFacts("n", "1", "d"), Path("/f"))
    assert WorkOrder.from_json(order.to_json()) == order


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["explain"], "--archive, --input, --output"),
        (["explain", *NEEDED, "--overlays", "some"], "'auto', 'none', 'all', 'each'"),
        (["explain", *NEEDED, "--shard-size", "0"], "at least 1, got 0"),
        (["explain", *NEEDED, "--score-threshold", "2"], "from 0 to 1, got 2"),
        (["explain", *NEEDED, "--score-threshold", "x"], "expected a number from 0 to 1, got x"),
        (["explain", *NEEDED, "--batch-size", "x"], "expected a whole number of at least 1, got x"),
        (["explain", *NEEDED, "--engine", "slurm"], "local"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_archive_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = str(tmp_path / "none.mar")
    assert main(["explain", "--archive", archive, "--input", "in", "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"jobs: the archive {archive} cannot be opened")
    assert error.count("\n") == 1


def test_an_archive_by_alias(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--archive", "demo@production", "--input", "i", "--output", "o"]) == 2
    assert "demo@production: an archive by alias needs a registry" in capsys.readouterr().err


def test_the_parent_process_does_not_load_torch() -> None:
    code = "import sys, jobs.__main__, jobs.s3; print({'torch', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

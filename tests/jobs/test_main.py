"""The command line, in the process that a person starts."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from handlers.schema import ABLATIONS, ExplainRequest
from handlers.targets.registry import TARGETS
from jobs import options as job_options
from jobs.__main__ import main, parse
from jobs.commands.shared_arguments import REQUEST_FIELDS
from jobs.options import (
    JobOptions,
    Options,
    PreviewOptions,
    ReportOptions,
    StatusOptions,
    SweepOptions,
)
from jobs.page.options import ReportPageOptions
from jobs.work_order import ArchiveFacts, WorkOrder

NEEDED = ["--archive", "a.mar", "--input", "in", "--output", "out"]


def test_defaults() -> None:
    assert parse(["explain", *NEEDED]) == JobOptions(archive="a.mar", inputs=("in",), output="out")


def test_every_option_reaches_the_worker_unchanged() -> None:
    text = """explain --archive s3://b/a.mar --input a.jpg b.jpg --input c --output s3://b/o
        --method odam --target box --layer roi --fuse --category dog --score-threshold 0.25
        --max-detections 7 --box 1 2 3.5 4 --candidates 20 --sum-boxes --batch-size 4
        --normalize-in-box --smooth 0.2 --center-prior 0.3 --ablation tutorial --channels 0.1
        --masks 500 --seed 0
        --device cuda:1 --precision bf16 --shard-size 9 --overlays all --engine ray
        --manifest s3://b/keys.csv --no-pictures --workers 3 --shard 2/8
        --public-key a.pem --public-key b.pem"""
    options = parse(text.split())
    assert options == JobOptions(
        archive="s3://b/a.mar",
        inputs=("a.jpg", "b.jpg", "c"),
        output="s3://b/o",
        request={
            "method": "odam",
            "target": "box",
            "layer": "roi",
            "fuse": True,
            "category": "dog",
            "score_threshold": 0.25,
            "max_detections": 7,
            "box": [1.0, 2.0, 3.5, 4.0],
            "candidates": 20,
            "sum_boxes": True,
            "normalize_in_box": True,
            "smooth": 0.2,
            "center_prior": 0.3,
            "ablation": "tutorial",
            "channels": 0.1,
            "masks": 500,
            "seed": 0,
        },
        batch_size=4,
        device="cuda:1",
        precision="bf16",
        shard_size=9,
        overlays="all",
        engine="ray",
        manifest="s3://b/keys.csv",
        pictures=False,
        workers=3,
        shard=(2, 8),
        public_keys=("a.pem", "b.pem"),
    )
    assert_reaches_the_worker(options)


def test_the_rest_of_the_options() -> None:
    options = parse(["explain", *NEEDED, "--coco", "--dry-run"])
    assert (options.coco, options.dry_run) == (True, True)


@pytest.mark.parametrize(
    ("both", "said"),
    [
        (["--coco", "--sum-boxes"], "--coco lists boxes one by one: give it without --sum-boxes"),
        (["--dry-run", "--shard", "0/2"], "--dry-run looks at the whole job: give it without"),
        (["--fuse", "--save-raw"], "--save-raw keeps layers' own activations: give it without"),
    ],
)
def test_options_that_exclude_each_other(
    both: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["explain", *NEEDED, *both])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_a_preview_needs_only_an_archive() -> None:
    needed = "explain --preview-model --archive a.mar"
    assert parse(needed.split()) == PreviewOptions("a.mar")
    options = parse(f"{needed} --target mask --device cuda --public-key k.pem".split())
    assert options == PreviewOptions("a.mar", "mask", device="cuda", public_keys=("k.pem",))
    assert_reaches_the_worker(options)


def test_every_option_of_a_sweep() -> None:
    needed = "sweep --archive a.mar --input a.png --output s3://b/grid.PNG --layers roi body.*"
    options = parse(needed.split())
    assert options == SweepOptions("a.mar", "a.png", "s3://b/grid.PNG", ("roi", "body.*"))
    more = "--methods odam --target box --category dog --score-threshold 0.1 --max-detections 2"
    more += " --normalize-in-box --ablation fixed --channels 1 --masks 9 --seed 7"
    options = parse(f"{needed} {more} --candidates 3 --device cuda --precision bf16".split())
    request = {
        "target": "box",
        "category": "dog",
        "score_threshold": 0.1,
        "max_detections": 2,
        "candidates": 3,
        "normalize_in_box": True,
        "ablation": "fixed",
        "channels": 1.0,
        "masks": 9,
        "seed": 7,
    }
    assert options == SweepOptions(
        "a.mar", "a.png", "s3://b/grid.PNG", ("roi", "body.*"), ("odam",), request, "cuda", "bf16"
    )
    assert_reaches_the_worker(options)


def assert_reaches_the_worker(options: Options) -> None:
    order = WorkOrder(options, ArchiveFacts("n", "1", "d"), Path("/f"))
    assert WorkOrder.from_json(order.to_json()) == order


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--layer", "roi", "body.layer4"], {"layer": "roi,body.layer4"}),
        (["--layer", "roi, body.layer4", "roi"], {"layer": "roi,body.layer4"}),
        (["--box", "1", "2", "3", "4"], {"box": [1, 2, 3, 4]}),
        (["--box", "-1", "2", "3", "4"], {"box": [-1, 2, 3, 4]}),
        (["--box", "1,2,3.5,4"], {"box": [1, 2, 3.5, 4]}),
        (["--box", "1,", "2,", "3,", "4"], {"box": [1, 2, 3, 4]}),
        (["--save-raw"], {"save_raw": True}),
        (["--save-raw", "--no-save-raw"], {"save_raw": False}),
        (["--seed", "9223372036854775807"], {"seed": 2**63 - 1}),
    ],
)
def test_forms_of_a_request(given: list[str], expected: dict[str, object]) -> None:
    options = parse(["explain", *NEEDED, *given])
    assert isinstance(options, JobOptions)
    assert options.request == expected
    assert ExplainRequest.from_fields(options.request)


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
        (["explain", *NEEDED, "--engine", "slurm"], "'local', 'ray'"),
        (["explain", *NEEDED, "--workers", "0"], "at least 1, got 0"),
        (["explain", *NEEDED, "--shard", "8/8"], "INDEX of 0 to COUNT - 1, such as 3/8, or /8"),
        (["explain", *NEEDED, "--shard", "0/0"], "got 0/0"),
        (["explain", *NEEDED, "--shard", "3"], "expected INDEX/COUNT"),
        (["explain", *NEEDED, "--shard", "1/8/9"], "got 1/8/9"),
        (["explain", "--preview-model"], "are required: --archive"),
        (["status"], "required: OUTPUT"),
        (["report"], "required: OUTPUT"),
        (["explain", "--archive", "a.mar"], "are required: --input, --output"),
        (["explain", *NEEDED, "--box", "1", "2", "3"], "four numbers x1 y1 x2 y2, got 1 2 3"),
        (["explain", *NEEDED, "--box", "1,2,3,x"], "four numbers x1 y1 x2 y2, got 1,2,3,x"),
        (["explain", *NEEDED, "--candidates", "0"], "at least 1, got 0"),
        (["explain", *NEEDED, "--save-raw", "--fuse"], "without --fuse"),
        (["explain", *NEEDED, "--channels", "0"], "a number above 0, at most 1, got 0"),
        (["explain", *NEEDED, "--channels", "2"], "from 0 to 1, got 2"),
        (["explain", *NEEDED, "--masks", "0"], "at least 1, got 0"),
        (["explain", *NEEDED, "--seed", "-1"], "from 0 to 9223372036854775807, got -1"),
        (
            ["explain", *NEEDED, "--seed", "9223372036854775808"],
            "from 0 to 9223372036854775807, got 9",
        ),
        (["explain", *NEEDED, "--ablation", "some"], "'fixed', 'tutorial'"),
        (["sweep", *NEEDED[:-1], "o.png"], "required: --layers"),
        (["sweep", *NEEDED, "--layers", "roi"], "ending in .png, .jpg, .jpeg, got out"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_every_field_of_a_request_can_be_given() -> None:
    assert set(REQUEST_FIELDS) == {each.name for each in fields(ExplainRequest)}
    assert job_options.ABLATIONS == ABLATIONS


def test_the_readme_names_every_option_and_target() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    commands = (
        "explain",
        "sweep",
        "features",
        "classify",
        "report",
        "compare",
        "triage",
    )
    helps = [_help(command) for command in commands]
    options = set(re.findall(r"--(?!no-)[a-z-]+", "".join(helps))) - {"--help"}
    assert [name for name in sorted(options) if name not in readme] == []
    row = next(line for line in readme.splitlines() if line.startswith("| `--target`"))
    named = set(re.findall(r"`([a-z_0-9]+)`", row))
    assert named == set(TARGETS.names())


def test_status_and_report_need_no_archive() -> None:
    assert parse(["status", "out"]) == StatusOptions("out")
    assert parse(["status", "s3://b/out", "--json"]) == StatusOptions("s3://b/out", json=True)
    assert parse(["report", "out"]) == ReportOptions("out")
    assert parse(["report", "out", "--coco"]) == ReportOptions("out", coco=True)
    given = "report out --earlier a s3://b/c --earlier d --gallery 7 --no-report-pictures"
    page = ReportPageOptions(("a", "s3://b/c", "d"), pictures=False, gallery=7)
    assert parse(given.split()) == ReportOptions("out", page=page)


def test_status_runs_in_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"jobs: there is no run at {tmp_path}: ")


def test_report_runs_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("jobs.report")
    module.report_command = lambda each: {"out": 3}[each.output] + each.coco  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jobs.report", module)
    assert main(["report", "out"]) == 3
    assert main(["report", "out", "--coco"]) == 4


def _help(command: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        parse([command, "--help"])
    return printed.getvalue()


def test_an_archive_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = str(tmp_path / "none.mar")
    assert main(["explain", "--archive", archive, "--input", "in", "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"jobs: the archive {archive} cannot be opened")
    assert error.count("\n") == 1


def test_an_archive_by_alias(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WHYBOX_REGISTRY", raising=False)
    assert main(["explain", "--archive", "demo@production", "--input", "i", "--output", "o"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jobs: the archive demo@production: which registry? Give --registry")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["explain", *NEEDED],
        ["explain", "--archive", "demo@production", "--preview-model"],
        ["features", *NEEDED],
        ["classify", *NEEDED],
        ["evaluate", *NEEDED],
        ["boxes", *NEEDED],
        ["sanity", *NEEDED],
        ["sweep", *NEEDED[:4], "--output", "o.png", "--layers", "roi"],
    ],
)
def test_every_command_with_an_archive_takes_a_registry(command: list[str]) -> None:
    assert vars(parse([*command, "--registry", "s3://b/r"]))["registry"] == "s3://b/r"
    assert vars(parse(command))["registry"] is None


def test_a_registry_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.yaml").write_text("registry: s3://b/file\n")
    config = ["--config", str(tmp_path / "job.yaml")]
    assert vars(parse(["explain", *NEEDED, *config]))["registry"] == "s3://b/file"
    monkeypatch.setenv("WHYBOX_REGISTRY", "s3://b/environment")
    assert vars(parse(["explain", *NEEDED, *config]))["registry"] == "s3://b/environment"


def test_the_parent_process_does_not_load_torch() -> None:
    heavy = "{'torch', 'numpy', 'pydantic'}"
    code = f"import sys, jobs.__main__, archives.stores.s3; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

"""Where the settings of `jobs explain` come from, and which of them counts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import parse
from jobs.commands.explain import settable
from jobs.commands.registry import command_line
from jobs.commands.shared_arguments import REQUEST_FIELDS
from jobs.options import JobOptions, PreviewOptions

NEEDED = ["--archive", "a.mar", "--input", "in", "--output", "out"]
EVERYTHING = """
archive: s3://b/a.mar
public_key: [a.pem, b.pem]
input: [s3://b/one, s3://b/two]
output: s3://b/out
manifest: s3://b/keys.parquet
method: gradcam
target: box
layer: [emitting, C3]
fuse: true
category: "7"
score_threshold: 0.6
max_detections: 20
box: [1, 2, 3.5, 4]
smooth: 0.2
masks: 500
batch_size: 16
shard_size: 512
device: cuda
precision: bf16
overlays: none
coco: true
engine: ray
workers: 4
shard: 3/8
dry_run: false
seed:
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


def options(*arguments: str | Path) -> JobOptions:
    found = parse(["explain", *map(str, arguments)])
    assert isinstance(found, JobOptions)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The line that a command line is refused with."""
    with pytest.raises(SystemExit) as caught:
        parse(["explain", *map(str, arguments)])
    assert caught.value.code == 2
    usage, _, line = capsys.readouterr().err.rpartition("python -m jobs explain: error: ")
    assert usage.startswith("usage: ")
    assert line.count("\n") == 1
    return line.rstrip()


def test_a_file_gives_everything(config: Path) -> None:
    config.write_text(EVERYTHING)
    assert options("--config", config) == JobOptions(
        archive="s3://b/a.mar",
        inputs=("s3://b/one", "s3://b/two"),
        output="s3://b/out",
        request={
            "method": "gradcam",
            "target": "box",
            "layer": "emitting,C3",
            "fuse": True,
            "category": "7",
            "score_threshold": 0.6,
            "max_detections": 20,
            "box": [1.0, 2.0, 3.5, 4.0],
            "smooth": 0.2,
            "masks": 500,
        },
        batch_size=16,
        device="cuda",
        precision="bf16",
        shard_size=512,
        overlays="none",
        engine="ray",
        manifest="s3://b/keys.parquet",
        coco=True,
        workers=4,
        shard=(3, 8),
        public_keys=("a.pem", "b.pem"),
    )


def test_every_flag_has_a_setting_of_its_name() -> None:
    parser = command_line().parse_args(["explain"]).parser
    fields = {*JobOptions.__dataclass_fields__, *REQUEST_FIELDS} - {"request"}
    fields = fields - {"inputs", "public_keys"} | {"input", "public_key"}
    assert settable(parser).keys() == fields


@pytest.mark.parametrize(
    ("flag", "environment", "file", "expected"),
    [
        ("1", "2", "3", 1),
        ("1", None, "3", 1),
        ("1", "2", None, 1),
        (None, "2", "3", 2),
        (None, None, "3", 3),
        (None, "", "3", 3),
        (None, None, "null", JobOptions.batch_size),
        (None, "2", None, 2),
        (None, None, None, JobOptions.batch_size),
    ],
)
def test_flags_before_environment_before_file_before_defaults(
    flag: str | None,
    environment: str | None,
    file: str | None,
    expected: int | None,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config.write_text("device: cuda\n" if file is None else f"batch_size: {file}\ndevice: cuda\n")
    if environment is not None:
        monkeypatch.setenv("WHYBOX_BATCH_SIZE", environment)
    found = options(*NEEDED, "--config", config, *([] if flag is None else ["--batch-size", flag]))
    assert (found.batch_size, found.device) == (expected, "cuda")


def test_a_flag_undoes_what_the_file_switches_on(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("fuse: true\ncoco: true\nshared: true\n")
    monkeypatch.setenv("WHYBOX_SHARED", "false")
    found = options(*NEEDED, "--config", config, "--no-fuse")
    assert found.request == {"fuse": False, "shared": False}
    assert found.coco


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("INPUT", '["a.jpg", "b c.jpg"]', {"inputs": ("a.jpg", "b c.jpg")}),
        ("INPUT", "s3://b/a", {"inputs": ("s3://b/a",)}),
        ("INPUT", "[a].jpg", {"inputs": ("[a].jpg",)}),
        ("LAYER", "roi,C3", {"request": {"layer": "roi,C3"}}),
        ("BOX", "[1, 2, 3, 4]", {"request": {"box": [1, 2, 3, 4]}}),
        ("BOX", "1,2,3,4", {"request": {"box": [1, 2, 3, 4]}}),
        ("CATEGORY", "7", {"request": {"category": "7"}}),
        ("DRY_RUN", "1", {"dry_run": True}),
        ("SHARD", "2/3", {"shard": (2, 3)}),
        ("DATA", "others'", {}),
        ("JAVA_HOME", "others'", {}),
        ("S3_TIMEOUT", "others'", {}),
    ],
)
def test_the_environment(
    variable: str, text: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"ARCHIVE": "a.mar", "INPUT": "in", "OUTPUT": "out", variable: text}
    for name, value in given.items():
        monkeypatch.setenv(f"WHYBOX_{name}", value)
    assert options() == JobOptions(
        **{"archive": "a.mar", "inputs": ("in",), "output": "out", **expected}
    )


def test_one_input_or_layer_in_a_file_needs_no_list(config: Path) -> None:
    config.write_text("input: in\nlayer: roi\narchive: a.mar\noutput: out\n")
    found = options("--config", config)
    assert (found.inputs, found.request) == (("in",), {"layer": "roi"})


def test_a_preview_takes_its_archive_from_a_file(config: Path) -> None:
    config.write_text(EVERYTHING)
    found = parse(["explain", "--preview-model", "--config", str(config)])
    assert found == PreviewOptions(
        "s3://b/a.mar", "box", "cuda", "bf16", public_keys=("a.pem", "b.pem")
    )


def test_what_no_source_gives_is_asked_for(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("archive: a.mar\n")
    monkeypatch.setenv("WHYBOX_OUTPUT", "out")
    line = refused(capsys, "--config", config)
    assert line == "the following arguments are required: --input"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size: 0", "{}: batch_size: expected a whole number of at least 1, got 0"),
        ("batch_size: 1.5", "{}: batch_size: expected a whole number of at least 1, got 1.5"),
        ("batch_size: true", "{}: batch_size: expected a number, got True"),
        ("batch_size: [1]", "{}: batch_size: expected a number, got [1]"),
        ("score_threshold: 2", "{}: score_threshold: expected a number from 0 to 1, got 2"),
        ("category: no", "{}: category: expected text (in quotes), got False"),
        ("layer: [a, 7]", "{}: layer: expected text (in quotes), got ['a', 7]"),
        ("layer: []", "{}: layer: expected one or several, and not an empty list, got []"),
        ("box: [1, 2]", "{}: box: expected four numbers x1 y1 x2 y2, got [1, 2]"),
        ("fuse: 3", "{}: fuse: expected true or false, got 3"),
        ("overlays: some", "{}: overlays: expected one of auto, none, all, each, got 'some'"),
        ("batchsize: 3", "{}: batchsize: there is no such setting; did you mean batch_size?"),
        ("batch-size: 3", "{}: batch-size: there is no such setting; did you mean batch_size?"),
        ("config: 3", "{}: config: there is no such setting; expected one of archive, registry, "),
        ("zzz: 1\nseed: -1", "{}: zzz: there is no such setting; .*; {}: seed: expected a whole"),
        ("- a", "{}: expected the flags' names with values, such as 'batch_size: 16', got ['a']"),
        ("no: 1", "{}: expected the flags' names with values"),
        ("seed: 1\ndevice: cpu\nseed: 2", "{}, line 1: expected plain YAML; the key seed is there"),
        ("seed: 1\nbox: [1", "{}, line 2: expected plain YAML; "),
        ("seed: !!python/object/apply:os.getpid []", "{}, line 1: expected plain YAML; could not"),
        ("category: 2024-13-45", "{}: expected plain YAML in UTF-8 (ValueError)"),
        ("[" * 1000, "{}: expected plain YAML in UTF-8 (RecursionError)"),
    ],
)
def test_what_a_file_may_not_say(
    text: str, message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(text)
    line = refused(capsys, *NEEDED, "--config", config)
    pattern = re.escape(message).replace(r"\{\}", re.escape(str(config))).replace(r"\.\*", ".*")
    assert re.match(pattern, line), line


@pytest.mark.parametrize(
    "text",
    [
        "batch_size: AKIAIOSFODNN7EXAMPLE",
        "batch_size: {password: hunter2}",
        "overlays: https://me:hunter2@host/",
        "category: [secret, hunter2]",
        "hunter: hunter2",
        "seed: 1\nbox: [hunter2",
    ],
)
def test_no_secret_is_shown(text: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(text)
    line = refused(capsys, *NEEDED, "--config", config)
    assert "hunter2" not in line
    assert "AKIA" not in line


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://b/job.yaml", "--config: expected a file of this machine, got s3://b/job.yaml: copy"),
        ("{}/none.yaml", "--config: {}/none.yaml cannot be read: No such file or directory"),
        ("{}", "--config: {} cannot be read: Is a directory"),
    ],
)
def test_a_file_that_cannot_be_had(
    place: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, *NEEDED, "--config", place.format(tmp_path))
    assert line.startswith(message.format(tmp_path))


def test_a_file_in_another_encoding(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_bytes("category: é".encode("latin-1"))
    assert "expected plain YAML in UTF-8" in refused(capsys, *NEEDED, "--config", config)


def test_an_empty_file(config: Path) -> None:
    config.write_text("# nothing yet\n")
    assert options(*NEEDED, "--config", config) == options(*NEEDED)


def test_what_the_environment_may_not_say(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("batch_size: 7")
    monkeypatch.setenv("WHYBOX_BATCH_SIZE", "many")
    line = refused(capsys, *NEEDED, "--config", config)
    assert line == "WHYBOX_BATCH_SIZE: expected a whole number of at least 1, got 'many'"
    assert options(*NEEDED, "--config", config, "--batch-size", "3").batch_size == 3


def test_what_a_file_and_a_flag_may_not_say_together(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text("fuse: true")
    assert "without --fuse" in refused(capsys, *NEEDED, "--config", config, "--save-raw")

"""Methods measured beside the controls: in this process, and by the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archives.errors import ConflictError, UsageError
from archives.stores.opening import open_store
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest, RequestError
from jobs.__main__ import parse
from jobs.audit.findings import read_part
from jobs.errors import NothingToMeasureError
from jobs.evaluation import evaluate as module
from jobs.evaluation import looking
from jobs.evaluation.evaluate import evaluate
from jobs.evaluation.measure import (
    CONTROLS,
    explained,
    measure,
)
from jobs.options import EvaluateOptions


def test_the_command_measures_writes_and_resumes(
    options: EvaluateOptions,
    demo: Explainer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert evaluate(options, demo) == 0
    printed = capsys.readouterr().out
    out = Path(options.output)
    record = json.loads((out / "evaluation.json").read_text())
    table = (out / "evaluation.md").read_text()
    assert table in printed
    names = [*CONTROLS, "odam emitting", "odam emitting+backbone.body.block3"]
    assert list(record["summary"]) == names
    assert all(f"| {name} |" in table for name in names)
    assert {len(rows) for rows in record["pictures"].values()} == {len(names)}
    # Half a run is taken up again: only the picture that is missing is measured.
    first = dict([*record["pictures"].items()][:1])
    half = {"settings": record["settings"], "pictures": first}
    (out / "evaluation.json").write_text(json.dumps(half))
    seen = []

    def noting(*arguments: Any) -> Any:
        seen.append(arguments)
        return measure(*arguments)

    monkeypatch.setattr(looking, "measure", noting)
    assert evaluate(options, demo) == 0
    again = json.loads((out / "evaluation.json").read_text())
    assert len(seen) == 1
    for name, own in record["summary"].items():
        assert again["summary"][name]["deletion"] == own["deletion"]
    assert evaluate(options, demo) == 0
    assert len(seen) == 1
    with pytest.raises(ConflictError, match="another evaluation's: its maps differ"):
        evaluate(replace(options, methods=("gradcam",)), demo)


def test_what_cannot_be_measured(options: EvaluateOptions, demo: Explainer) -> None:
    with pytest.raises(RequestError, match="method: got 'nonesuch'"):
        evaluate(replace(options, methods=("nonesuch",)), demo)
    with pytest.raises(NothingToMeasureError, match="no box scores more than 1"):
        evaluate(replace(options, score_threshold=1.0), demo)


def test_pictures_that_all_fail_are_not_taken_for_weak_boxes(
    options: EvaluateOptions, demo: Explainer
) -> None:
    for picture in Path(options.inputs[0]).iterdir():
        picture.write_bytes(b"no picture")
    with pytest.raises(UsageError, match="all 2 pictures failed") as failed:
        evaluate(options, demo)
    assert not isinstance(failed.value, NothingToMeasureError)


@pytest.mark.parametrize("text", ["{}", '{"pict', "[]", '{"settings": 1, "pictures": {}}'])
def test_a_record_that_is_none_is_a_conflict(
    text: str, options: EvaluateOptions, demo: Explainer
) -> None:
    Path(options.output).mkdir()
    Path(options.output, "evaluation.json").write_text(text)
    with pytest.raises(ConflictError, match="no evaluation's, or was cut off"):
        evaluate(options, demo)
    assert Path(options.output, "evaluation.json").read_text() == text


def test_a_method_without_a_layer_is_measured_once_and_one_picture_has_no_error(
    options: EvaluateOptions, demo: Explainer
) -> None:
    one = replace(options, methods=("odam", "guided"), detections=1)
    assert evaluate(one, demo) == 0
    text = Path(options.output, "evaluation.json").read_text()
    summary = json.loads(text)["summary"]
    assert [name for name in summary if name.startswith("guided")] == ["guided emitting"]
    assert "NaN" not in text
    assert summary["guided emitting"]["deletion"][1] is None


def test_maps_are_as_asked(
    options: EvaluateOptions, demo: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ExplainRequest] = []

    def noted(explainer: Explainer, request: ExplainRequest) -> Any:
        asked.append(request)
        return explained(explainer, request)

    monkeypatch.setattr(module, "explained", noted)
    maps = (
        *("method=drise masks=3 smooth=0.2", "layer=emitting,pyramid fuse=true target=x1"),
        *("default", "method=odam"),
    )
    few = replace(options, methods=(), detections=1, maps=maps, controls=False)
    assert evaluate(few, demo) == 0
    assert asked == [
        ExplainRequest(method="drise", masks=3, smooth=0.2),
        ExplainRequest(layer="emitting,pyramid", fuse=True, target="x1"),
        ExplainRequest(smooth=0.2),
        ExplainRequest(),
    ]
    rows = json.loads(Path(options.output, "evaluation.json").read_text())["summary"]
    assert tuple(rows) == maps
    with pytest.raises(ConflictError, match="maps differ"):
        evaluate(replace(few, maps=maps[:1]), demo)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("box=1,2,3,4", "maps: got 'box=1,2,3,4'; allowed: default, or each at most once: m"),
        ("seed=1 seed=2", "maps: got 'seed=1 seed=2'; allowed: default, or each at most once"),
        ("odam", "maps: got 'odam'"),
        ("method=cam", "method: got 'cam'"),
        ("target=box_score", "target: got 'box_score'; allowed: one that each box"),
    ],
)
def test_maps_that_cannot_be_measured(
    fields: str, message: str, options: EvaluateOptions, demo: Explainer
) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        evaluate(replace(options, maps=(fields,)), demo)


def test_too_few_pictures_are_said(
    options: EvaluateOptions, demo: Explainer, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(options.inputs[0], "broken.png").write_bytes(b"no picture")
    few = replace(options, methods=(), detections=50)
    assert evaluate(few, demo) == 3
    said = capsys.readouterr().err
    assert "broken.png: not a picture" in said
    assert "only 2 of 50 boxes" in said
    # A picture that failed stays one, as in a job.
    assert evaluate(few, demo) == evaluate(replace(few, detections=1), demo) == 3
    assert "broken.png: not a picture" in capsys.readouterr().err


def test_arguments() -> None:
    line = "evaluate --no-controls --archive a.mar --input in --output out --methods odam,gradcam"
    line += " --layers emitting a+b --detections 7 --target probability --steps 11 --seed 3"
    maps = ("method=drise masks=9", "smooth=0.2")
    assert parse([*line.split(), "--maps", *maps]) == EvaluateOptions(
        "a.mar",
        ("in",),
        "out",
        controls=False,
        methods=("odam", "gradcam"),
        layers=("emitting", "a+b"),
        target="probability",
        detections=7,
        steps=11,
        seed=3,
        maps=maps,
    )
    few = ["evaluate", "--archive", "a.mar", "--input", "in", "--output", "out"]
    assert parse(few) == EvaluateOptions("a.mar", ("in",), "out", maps=("default",))
    assert parse([*few, "--controls"]) == parse(few)
    assert EvaluateOptions("a.mar", ("in",), "out").controls
    assert parse([*few, "--maps", *maps]) == EvaluateOptions(
        "a.mar", ("in",), "out", methods=(), maps=maps
    )
    truth = parse([*few, "--truth", "t", "--truth-format", "coco"])
    assert isinstance(truth, EvaluateOptions)
    assert (truth.truth, truth.truth_format, truth.least_score) == ("t", "coco", 0.1)
    assert EvaluateOptions("a", (), "o", truth="t", score_threshold=0.3).least_score == 0.3
    assert EvaluateOptions("a", (), "o").least_score == 0.5
    for wrong in (
        "--truth-format voc",
        "--truth t --truth-format x",
        "--steps 1",
        "--blur 0",
        "--growth 0.5",
        "--detections 0",
    ):
        with pytest.raises(SystemExit) as ended:
            parse(f"evaluate --archive a --input i --output o {wrong}".split())
        assert ended.value.code == 2


@pytest.mark.full
def test_the_command_line_runs_the_archives_code(
    options: EvaluateOptions, demo_archive: Path
) -> None:
    command = [sys.executable, "-m", "jobs", "evaluate"]
    command += ["--archive", str(demo_archive), "--input", *options.inputs]
    command += ["--output", options.output, "--methods", "odam", "--layers", "emitting"]
    command += ["--detections", "1", "--per-picture", "1", "--steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| odam emitting |" in done.stdout
    command[-1] = "3"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr


def test_an_audit_can_set_a_limit_to_pictures_that_failed_here(
    options: EvaluateOptions, demo: Explainer
) -> None:
    Path(options.inputs[0], "00.png").write_bytes(b"no picture")
    assert evaluate(replace(options, methods=(), maps=("default",)), demo) == 3
    part = read_part(open_store(options.output), "evaluation")
    assert part is not None
    # As in this command's own audit.json: those of explain are others.
    assert part.figures["failed pictures"] == 1

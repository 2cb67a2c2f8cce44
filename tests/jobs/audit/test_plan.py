"""The plan of an audit, and the commands that it stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from archives.errors import UsageError
from jobs.audit.plan import STEPS, Plan, Run, command_of, read_plan

LEAST = {"archive": "demo.mar", "input": "in", "output": "out"}


def commands(**settings: object) -> dict[str, str]:
    """Of each step that is done, the command line."""
    run = Run(Plan.model_validate(LEAST | settings), "out", before="yesterday", earlier=("a", "b"))
    lines = {step: command_of(step, run) for step in STEPS}
    return {step: " ".join(line) for step, line in lines.items() if line is not None}


def test_what_is_done_of_a_plan_that_says_little() -> None:
    archive = "--archive demo.mar --output out"
    assert commands() == {
        "explain": f"explain {archive} --input in",
        "evaluate": f"evaluate {archive} --input in --controls",
        "shortcuts": f"shortcuts {archive} --input in",
        "triage": f"triage {archive} --run out",
        "compare": "compare yesterday out --output out",
        "report": "report out --earlier a b",
    }


def test_what_is_given_goes_to_its_step() -> None:
    found = commands(
        registry="s3://r",
        public_key=["a.pem", "b.pem"],
        device="cuda",
        pictures=False,
        truth={"place": "voc"},
        explain={"method": "odam", "fuse": True, "layer": ["C3", "C4"], "coco": False},
        evaluate={"detections": 20},
        sanity=True,
        shortcuts={"per_picture": 2},
        triage=False,
        compare={"before": "s3://other", "alpha": 0.01},
    )
    shared = (
        "--archive demo.mar --registry s3://r --public-key a.pem --public-key b.pem --output out"
    )
    shared += " --device cuda --input in"
    fields = "--method odam --fuse --layer C3 C4 --no-coco"
    assert found == {
        "explain": f"explain {shared} --no-pictures {fields}",
        "evaluate": f"evaluate {shared} --controls --truth voc --truth-format auto --detections 20",
        "sanity": f"sanity {shared} --no-pictures",
        "shortcuts": f"shortcuts {shared} --examples 0 --per-picture 2",
        "compare": "compare s3://other out --output out --alpha 0.01",
        "report": "report out --earlier a b --no-report-pictures",
    }


def test_what_is_false_by_itself_needs_no_flag() -> None:
    assert "coco" not in commands(report={"coco": False})["report"]
    assert commands(evaluate={"controls": False})["evaluate"].endswith("--no-controls")
    assert commands(explain={"coco": False})["explain"].endswith("--no-coco")


def test_without_an_earlier_run_nothing_is_compared() -> None:
    run = Run(Plan.model_validate(LEAST), "out")
    assert command_of("compare", run) is None
    assert command_of("report", run) == ["report", "out"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("archive: a.mar", "input: Field required; output: Field required"),
        ("{archive: a, input: b, output: c, sends: 1}", "sends: Extra inputs are not permitted"),
        ("{archive: a, input: b, output: c, keep: 30}", "keep: expected a number of days, such as"),
        ("{archive: a, input: b, output: c, keep: 0d}", "keep: expected a number of days, such as"),
        ("{archive: a, input: b, output: c, keep: 30d}", "keep: output has to end with a folder"),
        ("{archive: a, input: b, output: c, hook: {}}", "hook: expected a url or a command"),
        (
            "{archive: a, input: b, output: c, hook: {command: [x], token_variable: T}}",
            "hook: token_variable goes with a url",
        ),
        (
            "{archive: a, input: b, output: c, evaluate: {device: cuda}}",
            "evaluate: device is given once, at the top",
        ),
        (
            "{archive: a, input: b, output: c, triage: {truth-format: voc}}",
            "triage: truth-format is given once, at the top",
        ),
        (
            "{archive: a, input: b, output: c, triage: {outp: elsewhere}}",
            "triage: there is no setting outp here; expected one of shifts, most, batch_size, seed",
        ),
        (
            "{archive: a, input: b, output: c, triage: {run: other}}",
            "triage: there is no setting run here; expected one of shifts, ",
        ),
        (
            "{archive: a, input: b, output: c, compare: {after: other}}",
            "compare: there is no setting after here; expected one of before, alpha, iou, top, j",
        ),
        (
            "{archive: a, input: b, output: c, explain: {dry_run: true}}",
            "explain: there is no setting dry_run here; expected one of method, ",
        ),
        (
            "{archive: a, input: b, output: c, evaluate: {threshold: ['x>=1']}}",
            "evaluate: give it at the top, among the audit's thresholds",
        ),
        (
            "{archive: a, input: b, output: c, pictures: false, explain: {overlays: each}}",
            "explain: overlays goes with pictures, and these are private",
        ),
        (
            "{archive: a, input: b, output: c, thresholds: ['x > 0.3']}",
            "thresholds: expected FIGURE>=NUMBER or FIGURE<=NUMBER, got 'x > 0.3'",
        ),
        ("{archive: a, input: b, output: c, explain: false}", "explain: Input should be a valid"),
        ("- archive", "expected the flags' names with values"),
        ("archive: [", "expected plain YAML"),
        ("archive: a\narchive: b", "the key archive is there twice"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "audit.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"audit\.yaml.*" + says):
        read_plan(str(path))


def test_a_refused_plan_does_not_show_what_may_be_secret(tmp_path: Path) -> None:
    path = tmp_path / "audit.yaml"
    path.write_text("{archive: a, input: b, output: c, hook: {url: 'https://u:hunter2@x', no: 1}}")
    with pytest.raises(UsageError) as caught:
        read_plan(str(path))
    assert "hunter2" not in str(caught.value)


def test_a_report_of_private_pictures_shows_none_whatever_the_run_was_made_with() -> None:
    # The run may have been done before, with pictures: it is not done again, and run.json says so.
    assert "--no-report-pictures" in commands(pictures=False)["report"]


def test_a_manifest_that_explain_alone_would_follow_is_refused() -> None:
    # evaluate and shortcuts have none: they would measure other pictures than were explained.
    with pytest.raises(ValueError, match="manifest"):
        Plan.model_validate(LEAST | {"explain": {"manifest": "today.csv"}})


@pytest.mark.parametrize(
    ("field", "place", "refused"),
    [
        ("input", "nights/{date}/pictures", True),
        ("input", "nights/2026-01-01", True),
        ("input", "nights", False),
        ("input", "nights/pictures", False),
        ("truth", {"place": "s3://b/nights/{date}/truth"}, False),
        ("archive", "nights/../nights/2026-01-01/a.mar", True),
    ],
)
def test_what_an_audit_reads_is_not_where_old_nights_are_removed(
    field: str, place: object, refused: bool
) -> None:
    values = LEAST | {"output": "nights/{date}", "keep": "30d", field: place}
    if not refused:
        Plan.model_validate(values)
        return
    with pytest.raises(ValueError, match="lies in a day's output"):
        Plan.model_validate(values)
    Plan.model_validate({name: value for name, value in values.items() if name != "keep"})


def test_a_keep_of_the_command_line_goes_before_the_files(tmp_path: Path) -> None:
    path = tmp_path / "audit.yaml"
    path.write_text(yaml.safe_dump(LEAST | {"output": "nights/{date}", "keep": "30d"}))
    assert [read_plan(str(path), keep).keep for keep in (None, "7d")] == [30, 7]

"""A whole audit: what is done in which order, and what comes out of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from archives.errors import CommandError, StoreRefusedError, UsageError
from archives.stores.folder import FolderStore
from archives.stores.opening import open_store
from jobs.audit.audit import audit
from jobs.audit.findings import Part, read_part, write_part
from jobs.audit.options import AuditOptions

DIGEST = "ab" * 32
RUN = {
    "schema_version": 3,
    "status": "done",
    "archive": {"name": "demo", "version": "1.0", "digest": DIGEST, "uri": "a.mar"},
    "counts": {"pictures": 10, "detections": 40, "failures": 2},
}


@dataclass
class Steps:
    """In the place of the commands: they leave what those leave, and end as they are told."""

    codes: dict[str, int] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    lines: list[list[str]] = field(default_factory=list)

    def __call__(self, line: Sequence[str]) -> int:
        step = line[0]
        self.done.append(step)
        self.lines.append([*line])
        place = line[line.index("--output") + 1] if "--output" in line else line[1]
        output = open_store(place)
        if step == "explain":
            output.write("run.json", json.dumps(RUN).encode())
        if step == "evaluate" and not self.codes.get(step):
            write_part(output, Part("evaluation", "", "", figures={"default energy": 0.5}))
        if step == "triage":
            write_part(output, Part("triage", "", "", figures={"pictures": 7, "missed object": 2}))
        if step == "compare":
            write_part(output, Part("changes", "", "", figures={"changed": 3}))
        if step == "report":
            assert output.find("audit.json")  # the page shows it
            output.write("report/index.html", b"")
        return self.codes.get(step, 0)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "audit.yaml"


def run(config: Path, steps: Steps, date: str = "2026-03-10", **settings: Any) -> int:
    plan = {"archive": "a.mar", "input": "in", "output": str(config.parent / "out/{date}")}
    config.write_text(yaml.safe_dump(plan | settings))
    return audit(AuditOptions(str(config), date), steps)


def report(config: Path, date: str = "2026-03-10") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((config.parent / f"out/{date}/audit.json").read_text())
    return found


def test_all_is_done_and_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    assert run(config, steps, thresholds=["default energy>=0.4", "failed pictures<=2"]) == 0
    assert steps.done == ["explain", "evaluate", "shortcuts", "triage", "report"]
    found = report(config)
    assert found["archive"] == {"name": "demo", "version": "1.0", "digest": DIGEST}
    assert found["passed"] is True
    assert found["figures"] == {
        "pictures": 10,
        "boxes": 40,
        "failed pictures": 2,
        "failed steps": 0,
        "default energy": 0.5,
        "triage: pictures": 7,  # not the run's
        "missed object": 2,
    }
    assert found["links"]["report"].endswith("out/2026-03-10/report/index.html")
    assert "passed: " in capsys.readouterr().out


def test_the_next_night_is_compared_with_the_last(config: Path) -> None:
    run(config, Steps(), "2026-03-08")
    run(config, Steps(), "2026-03-09")
    steps = Steps()
    assert run(config, steps, thresholds=["changed<=2"]) == 4
    places = [str(config.parent / f"out/2026-03-{day}") for day in ("08", "09", "10")]
    assert [line for line in steps.lines if line[0] in ("compare", "report")] == [
        ["compare", places[1], places[2], "--output", places[2]],
        ["report", places[2], "--earlier", *places[:2]],
    ]


def test_a_missed_threshold_calls_the_hook(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = config.parent / "told.json"
    hook = {"command": ["sh", "-c", f"cat > {told}"]}
    assert run(config, Steps(), thresholds=["default energy>=0.6"], hook=hook) == 4
    assert json.loads(told.read_text()) == report(config)
    assert report(config)["passed"] is False
    said = capsys.readouterr().err
    assert "threshold missed: default energy is 0.5, less than 0.6" in said
    told.unlink()
    assert run(config, Steps(), "2026-03-11", hook=hook) == 0
    assert not told.exists()


def test_a_threshold_of_what_was_not_measured_is_missed(config: Path) -> None:
    assert run(config, Steps(), thresholds=["mean AP50>=0.1"]) == 4


def test_other_pictures_than_last_night_are_told_and_no_failure(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config, Steps(), "2026-03-09")
    assert run(config, Steps({"compare": 7})) == 0
    found = report(config)
    assert (found["figures"]["failed steps"], found["passed"]) == (0, True)
    assert found["notes"] == "steps with nothing to measure: compare (7)"
    assert "jobs: steps with nothing to measure: compare (7)" in capsys.readouterr().err
    output = config.parent / "out"
    part = read_part(open_store(str(output / "2026-03-10")), "changes")
    assert part == Part(
        "changes",
        "Changes: nothing to measure",
        "No picture is in both runs: nothing to compare, of 10 pictures of"
        f" {output}/2026-03-09 and 10 pictures of {output}/2026-03-10.",
    )


def test_a_quiet_night_is_told_and_no_failure(config: Path) -> None:
    idle = {"evaluate": 7, "sanity": 7, "shortcuts": 7}
    assert run(config, Steps(idle), sanity=True) == 0
    found = report(config)
    assert found["notes"] == (
        "steps with nothing to measure: evaluate (7), sanity (7), shortcuts (7)"
    )
    assert "default energy" not in found["figures"]
    for name in ("evaluation", "sanity", "shortcuts"):
        part = read_part(open_store(str(config.parent / "out/2026-03-10")), name)
        assert part is not None
        assert part.text.startswith("There was nothing to measure: no box")
    # What was to be reached was not measured.
    assert run(config, Steps(idle), thresholds=["default energy>=0.1"]) == 4


def test_a_step_that_fails_fails_the_audit_and_ends_nothing(config: Path) -> None:
    steps = Steps({"evaluate": 1, "shortcuts": 3})
    assert run(config, steps) == 4
    assert steps.done == ["explain", "evaluate", "shortcuts", "triage", "report"]
    found = report(config)
    assert (found["figures"]["failed steps"], found["passed"]) == (1, False)
    assert "default energy" not in found["figures"]


@pytest.mark.parametrize("code", [2, 5, 6, 75, 130, 143])
def test_nothing_is_audited_that_was_not_explained(config: Path, code: int) -> None:
    steps = Steps({"explain": code})
    told = config.parent / "told.json"
    assert run(config, steps, hook={"command": ["sh", "-c", f"cat > {told}"]}) == code
    assert steps.done == ["explain"]
    assert json.loads(told.read_text()) == {"passed": False, "notes": f"explain ended with {code}"}


def test_parts_of_an_earlier_attempt_are_not_shown(config: Path) -> None:
    assert run(config, Steps()) == 0
    parts = config.parent / "out/2026-03-10/audit"
    assert run(config, Steps({"evaluate": 1}), triage=False) == 4
    assert "default energy" not in report(config)["figures"]
    assert list(parts.iterdir()) == []


@pytest.mark.parametrize("step", ["explain", "evaluate"])
def test_an_interruption_ends_it_and_leaves_no_verdict(config: Path, step: str) -> None:
    assert run(config, Steps()) == 0
    output = config.parent / "out/2026-03-10"
    before = (output / "run.json").read_bytes()
    assert (output / "report/index.html").exists()
    steps, told = Steps({step: 130}), config.parent / "told.json"
    assert run(config, steps, hook={"command": ["sh", "-c", f"cat > {told}"]}) == 130
    assert json.loads(told.read_text()) == {"passed": False, "notes": f"{step} ended with 130"}
    assert steps.done == ["explain", "evaluate"][: 1 + (step == "evaluate")]
    assert not (output / "audit.json").exists()
    assert not (output / "report/index.html").exists()
    assert (output / "run.json").read_bytes() == before  # what is done is not done again
    assert run(config, Steps()) == 0
    assert report(config)["passed"] is True


@pytest.mark.parametrize("step", ["explain", "evaluate", "triage", "report"])
def test_pictures_that_failed_are_said_by_the_exit_code(config: Path, step: str) -> None:
    assert run(config, Steps({step: 3})) == 3
    assert run(config, Steps({step: 3}), thresholds=["boxes>=1000"]) == 4


def test_an_alias_is_followed_once(config: Path) -> None:
    steps = Steps()
    run(config, steps, archive="demo@production")
    archives = [line[line.index("--archive") + 1] for line in steps.lines if "--archive" in line]
    assert archives == ["demo@production", *["demo@1.0"] * 3]


def test_a_report_that_fails_fails_the_gate_too(config: Path) -> None:
    assert run(config, Steps({"report": 1})) == 4
    assert report(config)["passed"] is False


def test_a_day_has_its_own_input(config: Path) -> None:
    steps = Steps()
    run(config, steps, input="s3://b/{date}/in")
    assert steps.lines[0][-1] == "s3://b/2026-03-10/in"


@pytest.mark.parametrize(
    ("code", "thresholds", "left"),
    [
        (0, [], ["2026-03-01", "2026-03-10"]),
        # The last one that passed stays, and nothing goes before the audit has come to its end.
        (4, ["boxes>=1000"], ["2026-01-02", "2026-03-01", "2026-03-10"]),
        (75, [], ["2026-01-01", "2026-01-02", "2026-01-03", "2026-03-01", "2026-03-10"]),
    ],
)
def test_old_runs_go_once_an_audit_is_done(
    config: Path, code: int, thresholds: list[str], left: list[str]
) -> None:
    for date, missed in (("01-01", 0), ("01-02", 0), ("01-03", 1), ("03-01", 1)):
        assert run(config, Steps({"evaluate": missed}), f"2026-{date}") == 4 * missed
    steps = Steps({"explain": code} if code == 75 else {})
    assert run(config, steps, thresholds=thresholds, keep="30d") == code
    assert sorted(each.name for each in (config.parent / "out").iterdir()) == left


def test_a_command_line_that_makes_no_sense_is_refused_before_anything_is_done(
    config: Path,
) -> None:
    steps = Steps()
    with pytest.raises(UsageError, match=r"explain: .*--shard-size: expected"):
        run(config, steps, explain={"shard_size": 0})
    with pytest.raises(UsageError, match=r"compare: .*--alpha: expected a number above 0"):
        run(config, steps, compare={"alpha": 0})  # though there is nothing yet to compare with
    assert steps.done == []


def test_a_dry_run_prints_the_commands(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(config, Steps(), evaluate={"maps": ["method=odam smooth=0.2"]})
    capsys.readouterr()
    assert audit(AuditOptions(str(config), "2026-03-10", dry_run=True)) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("python -m jobs evaluate --archive a.mar --output ")
    assert out[1].endswith("--input in --controls --maps 'method=odam smooth=0.2'")


def test_what_an_earlier_attempt_drew_goes_where_pictures_are_private(config: Path) -> None:
    assert run(config, Steps()) == 0
    output = config.parent / "out/2026-03-10"
    (output / "shortcuts").mkdir()
    sheets = [output / "shortcuts/cat%2C-right.jpg", output / "sanity.jpg"]
    for each in sheets:
        each.write_bytes(b"a sheet")
    assert run(config, Steps(), pictures=False, shortcuts=False) == 0
    assert [each for each in sheets if each.exists()] == []


def test_old_pictures_that_lie_in_a_days_folder_are_no_results(config: Path) -> None:
    place = str(config.parent / "out/{date}/pictures")
    mine = Path(place.replace("{date}", "2026-01-01"), "a.png")
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"a picture")
    run(config, Steps(), "2026-01-01", input=place)
    with suppress(UsageError):  # to refuse such a plan would do, too
        run(config, Steps(), "2026-03-10", input=place, keep="30d")
    assert mine.exists()


def test_a_night_that_is_done_again_is_not_removed_meanwhile(config: Path) -> None:
    run(config, Steps(), "2026-01-01")
    record = config.parent / "out/2026-01-01/run.json"
    there = []

    class Slow(Steps):
        def __call__(self, line: Sequence[str]) -> int:
            if line[0] == "evaluate":
                tonight = config.with_name("tonight.yaml")
                plan = yaml.safe_load(config.read_text()) | {"keep": "30d"}
                tonight.write_text(yaml.safe_dump(plan))
                audit(AuditOptions(str(tonight), "2026-03-10"), Steps())
                there.append(record.exists())
                record.parent.mkdir(exist_ok=True)
                record.write_text(json.dumps(RUN))
            return super().__call__(line)

    run(config, Slow(), "2026-01-01")
    assert there == [True]


def test_a_removal_that_fails_is_said_and_changes_nothing(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config, Steps(), "2026-01-01")

    def refused(self: FolderStore, key: str) -> None:
        if "2026-01-01" in self.uri:
            raise StoreRefusedError("2026-01-01 cannot be deleted")

    monkeypatch.setattr(FolderStore, "delete", refused)
    assert run(config, Steps(), keep="30d") == 0


def test_a_store_that_fails_amid_an_audit_calls_the_hook(config: Path) -> None:
    class Failing(Steps):
        def __call__(self, line: Sequence[str]) -> int:
            code = super().__call__(line)
            if line[0] == "triage":  # what another wrote, or was cut off
                (config.parent / "out/2026-03-10/audit/triage.json").write_text("{")
            return code

    told = config.parent / "told.json"
    with suppress(CommandError):
        run(config, Failing(), hook={"command": ["sh", "-c", f"cat > {told}"]})
    assert json.loads(told.read_text())["passed"] is False


def test_one_days_record_that_cannot_be_read_does_not_end_all_audits(config: Path) -> None:
    record = config.parent / "out/2026-03-01/run.json"
    record.parent.mkdir(parents=True)
    record.symlink_to(record)  # a loop
    assert run(config, Steps()) == 0


def test_to_be_told_to_end_amid_a_step_without_an_archive_is_noticed(config: Path) -> None:
    run(config, Steps(), "2026-03-09")
    handlers = {}

    class Watching(Steps):
        def __call__(self, line: Sequence[str]) -> int:
            handlers[line[0]] = signal.getsignal(signal.SIGTERM)
            return super().__call__(line)

    run(config, Watching())
    # Else the process is gone at once, and nobody calls the hook; only `launch` has a handler.
    assert handlers["compare"] != signal.SIG_DFL

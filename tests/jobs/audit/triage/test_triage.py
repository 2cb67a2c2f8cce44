"""`python -m jobs triage`, on runs whose findings are known and on the demo's archive."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from archives.errors import UsageError
from archives.stores.opening import open_store
from handlers.explainer import Explainer
from handlers.images import to_image
from handlers.schema import ExplainRequest, Explanation
from jobs.__main__ import parse
from jobs.audit.findings import read_part
from jobs.audit.triage import asking
from jobs.audit.triage.options import TriageOptions
from jobs.audit.triage.triage import triage
from jobs.audit.triage.why_not import Candidate
from jobs.tables import read_rows
from jobs.truth.objects import Objects
from tests.conftest import put, remove, scene_picture
from tests.jobs.audit.scripted import SIDE, Scripted, found
from tests.jobs.conftest import MakeJob, picture_bytes

A, B = (2.0, 2.0, 22.0, 12.0), (20.0, 20.0, 40.0, 40.0)
# All of the map's sum is in the upper left quarter, or in the lower right one.
CAT = found("cat", 0.8, A, [[1, 0], [0, 0]])
DOG = found("dog", 0.95, B, [[0, 0], [0, 1]])
STRAY = replace(DOG, heatmap=CAT.heatmap)
OPTIONS = TriageOptions("demo.mar", "", "", shifts=2, most=10)


@pytest.fixture
def run(tmp_path: Path, make_job: MakeJob) -> Callable[..., tuple[TriageOptions, Scripted]]:
    """Runs a script over pictures of grey values 0, 1, ...; how to look at that, and with what."""

    def made(
        script: Mapping[int, Sequence[Explanation]], number: int = 4, **options: Any
    ) -> tuple[TriageOptions, Scripted]:
        pictures = {f"<{n}>.png": picture_bytes(SIDE, SIDE, n) for n in range(number)}
        put(str(tmp_path / "in"), pictures)
        job = make_job(str(tmp_path / "in"), str(tmp_path / "run"), overlays="none", **options)
        explainer = job.explainer = Scripted(script)
        explainer.detector = SimpleNamespace(first_label=1)
        job.run()
        return replace(OPTIONS, run=job.output, output=str(tmp_path / "out")), explainer

    return made


def told(options: TriageOptions) -> list[tuple[str, int | None, str, float]]:
    """The findings, as the part has them."""
    part = read_part(open_store(options.output), "triage")
    assert part is not None
    return [(each.key, each.index, each.flag, round(each.severity, 3)) for each in part.findings]


def test_a_run_alone(
    run: Callable[..., tuple[TriageOptions, Scripted]], capsys: pytest.CaptureFixture[str]
) -> None:
    options, explainer = run({1: [CAT, DOG], 2: [STRAY], 3: [replace(DOG, score=0.6)]})
    assert triage(options, explainer) == 0
    # A map that does not move with its picture loses what it should have taken along; these do not
    # show it, being flat but for a corner.
    expected = [
        ("<2>.png", 0, "evidence outside the box", 0.95),
        ("<2>.png", 0, "low energy", 0.95),
    ]
    assert [each for each in told(options) if each[2] != "unstable"] == expected
    text = capsys.readouterr().out
    assert "4 boxes on 4 pictures" in text
    assert "3 pictures shown to the detector again" in text
    summary = json.loads(Path(options.output, "triage.json").read_text())
    assert summary["counts"]["low energy"] == {"dog": 1}
    assert summary["ranked"][0]["key"] == "<2>.png"
    assert summary["usual"]["dog"]["low_energy"] == 0.3
    rows = read_rows(Path(options.output, "triage.parquet").read_bytes())
    assert [(row["rank"], row["key"], row["flag"]) for row in rows[:2]] == [
        (0, "<2>.png", "evidence outside the box"),
        (0, "<2>.png", "low energy"),
    ]
    assert {row["category"] for row in rows[:2]} == {"dog"}


class Shaky(Scripted):
    """Loses the second detection of every picture whose upper left pixel is not what it was."""

    def explain(
        self,
        pictures: Sequence[Any],
        request: ExplainRequest | None = None,
        batch_size: int | None = None,
    ) -> list[list[Explanation]]:
        answers = super().explain(pictures, request, batch_size)
        return [answers[0], *(each[:1] for each in answers[1:])] if self.shaky else answers

    shaky = False


def test_what_a_move_loses_is_unstable(run: Callable[..., tuple[TriageOptions, Scripted]]) -> None:
    options, plain = run({1: [CAT, replace(DOG, score=0.7)]})
    explainer = Shaky(plain.script)
    explainer.detector, explainer.shaky = plain.detector, True
    assert triage(options, explainer) == 0
    assert ("<1>.png", 1, "unstable", 0.7) in told(options)
    assert triage(replace(options, shifts=0), explainer) == 0
    assert told(replace(options, shifts=0)) == []


def test_with_ground_truth(
    run: Callable[..., tuple[TriageOptions, Scripted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = {0: [CAT], 1: [DOG], 2: [CAT]}
    options, explainer = run(script, 5)
    listed = {
        "<0>.png": [("cat", A), ("dog", B)],  # the dog is missed
        "<1>.png": [("cat", B)],  # the dog is a cat
        "<2>.png": [("bird", A), ("cat", A)],  # what a bird is the detector does not know
        "<3>.png": [("cat", A)],  # missed
    }

    class Listed:
        categories = ("bird", "cat", "dog")

        def objects(self, key: str) -> Objects | None:
            if key not in listed:
                return None
            names, boxes = zip(*listed[key], strict=True)
            none = np.zeros(len(names), dtype=np.bool_)
            return Objects(np.array(boxes), names, none, none, (None,) * len(names))

    asked: list[tuple[str, int, tuple[float, ...]]] = []

    def read_truth(place: str, form: str, **_: Any) -> Listed:
        assert (place, form) == ("there", "voc")
        return Listed()

    def nearest(explainer: Any, picture: Any, missed: Any) -> list[Candidate]:
        asked.extend((each.category, int(picture[0, 0, 0]), each.box) for each in missed)
        return [Candidate(each.box, 0.25, "reported as box 3") for each in missed]

    module = ModuleType("jobs.truth.reading")
    monkeypatch.setattr(module, "read_truth", read_truth, raising=False)
    monkeypatch.setitem(sys.modules, "jobs.truth.reading", module)
    monkeypatch.setattr(asking, "nearest_candidates", nearest)
    options = replace(options, truth="there", truth_format="voc", shifts=0)
    assert triage(options, explainer) == 0
    assert asked == [("dog", 0, B), ("cat", 3, A)]
    assert told(options) == [
        ("<1>.png", 0, "wrong category", 0.95),
        ("<0>.png", None, "missed object", 0.75),
        ("<3>.png", None, "missed object", 0.75),
    ]
    summary = json.loads(Path(options.output, "triage.json").read_text())
    assert summary["truth"] == {
        **{"annotated_pictures": 4, "objects": 5, "missed": 3},
        "why": {"below the run's threshold": 2, "wrong category": 1},
        "categories_the_detector_does_not_know": {"bird": 1},
    }
    part = read_part(open_store(options.output), "triage")
    assert part is not None
    assert part.figures["missed share"] == 3 / 5


def test_a_picture_that_is_gone_or_breaks_is_said(
    run: Callable[..., tuple[TriageOptions, Scripted]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options, explainer = run({n: [CAT] for n in range(4)})
    (tmp_path / "in" / "<1>.png").unlink()
    (tmp_path / "in" / "<2>.png").write_bytes(b"no picture")
    assert triage(options, explainer) == 3
    summary = json.loads(Path(options.output, "triage.json").read_text())
    failures = [(each["key"], each["stage"]) for each in summary["failures"]]
    assert failures == [("<1>.png", "fetch"), ("<2>.png", "decode")]
    assert summary["looked_at_again"] == 2
    assert "jobs: <2>.png: not a picture" in capsys.readouterr().err


def test_a_run_in_a_bucket(make_job: MakeJob, bucket: str) -> None:
    put(f"{bucket}/in", {f"a b/{n}.png": picture_bytes(SIDE, SIDE, n) for n in range(1, 4)})
    job = make_job(f"{bucket}/in", f"{bucket}/run", overlays="none")
    explainer = job.explainer = Scripted({1: [CAT], 2: [STRAY]})
    explainer.detector = SimpleNamespace(first_label=1)
    job.run()
    remove(bucket, "in/a b/1.png")
    options = replace(OPTIONS, run=f"{bucket}/run", output=f"{bucket}/run")
    assert triage(options, explainer) == 3
    output = open_store(options.output)
    summary = json.loads(output.read("triage.json"))
    assert (summary["pictures"], summary["detections"], summary["looked_at_again"]) == (3, 2, 1)
    assert [(each["key"], each["stage"]) for each in summary["failures"]] == [
        ("a b/1.png", "fetch")
    ]
    ranked = [(row["rank"], row["key"]) for row in read_rows(output.read("triage.parquet"))]
    assert ranked[:2] == [(0, "a b/2.png")] * 2
    assert ("a b/2.png", 0, "evidence outside the box", 0.95) in told(options)


def test_keys_and_categories_steer_no_terminal(
    run: Callable[..., tuple[TriageOptions, Scripted]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(str(tmp_path / "in"), {"\x1b[31mred.png": picture_bytes(SIDE, SIDE, 7)})
    options, explainer = run({7: [replace(STRAY, category="\x1b[32mdog")]}, 0)
    assert triage(replace(options, shifts=0), explainer) == 0
    (tmp_path / "in/\x1b[31mred.png").unlink()
    assert triage(options, explainer) == 3
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert r"\x1b[31mred.png: evidence outside the box: \x1b[32mdog 0.95" in said.out
    assert r"jobs: \x1b[31mred.png: " in said.err


def test_budgets_are_kept(
    run: Callable[..., tuple[TriageOptions, Scripted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, explainer = run({n: [STRAY] for n in range(9)}, 12)
    assert triage(replace(options, most=4, shifts=1), explainer) == 0
    summary = json.loads(Path(options.output, "triage.json").read_text())
    assert summary["looked_at_again"] <= 4
    assert summary["counts"]["low energy"] == {"dog": 9}
    assert [each[2] for each in told(options)].count("low energy") == 4


@pytest.mark.parametrize(
    ("request_fields", "message"),
    [({"candidates": 3}, "was made with --candidates"), ({"sum_boxes": True}, "with --sum-boxes")],
)
def test_runs_of_other_things_are_refused(
    run: Callable[..., tuple[TriageOptions, Scripted]],
    request_fields: dict[str, Any],
    message: str,
) -> None:
    options, explainer = run({1: [CAT]}, 2, request=request_fields)
    with pytest.raises(UsageError, match=message):
        triage(options, explainer)


def test_on_the_demos_archive(demo: Explainer, make_job: MakeJob, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    to_image(scene_picture(4)).save(tmp_path / "in/4.png")
    job = make_job(str(tmp_path / "in"), str(tmp_path / "run"), overlays="none")
    assert demo.manifest is not None
    job.explainer, job.digest = demo, demo.manifest.digest  # type: ignore[assignment]
    job.run()
    options = replace(OPTIONS, run=job.output, output=str(tmp_path / "out"), shifts=1)
    assert triage(options, demo) == 0
    summary = json.loads(Path(options.output, "triage.json").read_text())
    assert summary["looked_at_again"] == 1
    assert summary["stability"]["median"] > 0.6
    assert summary["stability"]["boxes"] >= 0.8 * summary["detections"] > 2
    place = Path(job.output, "run.json")
    place.write_text(place.read_text().replace(job.digest, "ab" * 32))
    with pytest.raises(UsageError, match=r"was made by another archive, demo 1.0 \(ab"):
        triage(options, demo)


def test_the_command_line() -> None:
    line = "triage --archive a.mar --run out --output audit --truth there --truth-format coco"
    line += " --shifts 0 --most 9 --batch-size 2 --seed 3 --device cuda --precision bf16"
    assert parse(line.split()) == TriageOptions(
        *("a.mar", "out", "audit", "there", "coco", 0, 9, 2, 3, "cuda", "bf16")
    )
    few = ["triage", "--archive", "a.mar", "--run", "out", "--output", "audit"]
    assert parse(few) == TriageOptions("a.mar", "out", "audit")
    for wrong in ("--shifts 9", "--most 0", "--truth-format kitti"):
        with pytest.raises(SystemExit) as ended:
            parse([*few, *wrong.split()])
        assert ended.value.code == 2

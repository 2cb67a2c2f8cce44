"""`python -m jobs compare` on runs whose differences are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from archives.errors import UsageError
from archives.stores.opening import open_store
from handlers.schema import Explanation
from jobs.__main__ import main, parse
from jobs.audit.changes import rows as rows_module
from jobs.audit.changes.compare import compare
from jobs.audit.changes.differences import Change
from jobs.audit.changes.options import CompareOptions
from jobs.audit.changes.tally import Tally
from jobs.audit.findings import read_part
from jobs.errors import NothingToMeasureError
from jobs.tables import read_rows
from tests.conftest import put
from tests.jobs.audit.scripted import SIDE, Scripted, found
from tests.jobs.conftest import MakeJob, picture_bytes

Script = Mapping[int, Sequence[Explanation]]
NUMBER = 12
A, B = (2.0, 2.0, 22.0, 12.0), (20.0, 20.0, 40.0, 40.0)
CAT, DOG = found("cat", 0.9, A), found("dog", 0.7, B, [[0, 0], [0.25, 1]])


@pytest.fixture
def run(tmp_path: Path, make_job: MakeJob) -> Callable[..., str]:
    """Runs a script over NUMBER pictures of grey values 0, 1, ...; where that lies."""
    put(
        str(tmp_path / "in"),
        {f"<b>{n}.png": picture_bytes(SIDE, SIDE, n) for n in range(NUMBER)},
    )

    def made(name: str, script: Script, **options: Any) -> str:
        job = make_job(str(tmp_path / "in"), str(tmp_path / name), overlays="none", **options)
        job.explainer = Scripted(script)
        job.run()
        return job.output

    return made


def summary_of(before: str, after: str, **options: Any) -> dict[str, Any]:
    output = str(Path(after).parent / "out")
    assert compare(CompareOptions(before, after, output, **options)) == 0
    summary: dict[str, Any] = json.loads(Path(output, "changes.json").read_text())
    return summary


def table_of(after: str) -> list[dict[str, Any]]:
    return read_rows((Path(after).parent / "out" / "changes.parquet").read_bytes())


def noisy(each: Explanation, random: np.random.Generator) -> Explanation:
    """As another machine may compute it."""
    x1, y1, x2, y2 = (edge + random.uniform(-0.05, 0.05) for edge in each.box)
    noise = torch.from_numpy(1e-3 * random.uniform(-1, 1, each.heatmap.shape)).float()
    heat = each.heatmap * (1 + noise)
    return replace(
        each, box=(x1, y1, x2, y2), score=each.score + random.uniform(-1, 1) * 1e-4, heatmap=heat
    )


def test_equal_runs_and_rounding_are_no_change(run: Callable[..., str]) -> None:
    script = {n: [CAT, DOG, replace(CAT, box=B, score=0.5)] for n in range(NUMBER)}
    before, same = run("before", script), run("same", script)
    random = np.random.default_rng(0)
    other = run("noise", {n: [noisy(each, random) for each in own] for n, own in script.items()})
    for after in (same, other):
        found = summary_of(before, after)
        assert (found["pictures"]["compared"], found["pictures"]["changed"]) == (NUMBER, 0)
        assert (found["found"], found["worst"], found["settings"]) == ([], [], [])
        everything = found["everything"]
        assert {each["mean"] for each in everything["differences"].values()} == {0}
        # Another score at the threshold may be lost to it: it is neither here nor there.
        assert everything["counts"].keys() <= {"before", "after", "matched", "out of reach"}
        assert all(test["p"] == 1 for test in found["tests"] if test["figure"] != "detections")
    assert everything["distances"]["box"]["mean"] == 0
    assert everything["distances"]["map"]["mean"] == 0


def test_what_changed_is_found_and_told(
    run: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    # Every cat's score falls by 0.2, one dog is gone, one became a cat, one map moved.
    before = run("before", {n: [CAT, DOG] for n in range(NUMBER)})
    weaker = replace(CAT, score=0.7)
    script = {n: [weaker, DOG] for n in range(NUMBER)}
    script[2] = [weaker]
    script[3] = [weaker, replace(DOG, category="cat", label=1, score=0.6)]
    script[5] = [weaker, replace(DOG, heatmap=DOG.heatmap.flip(0))]
    after = run("after", script, request={"score_threshold": 0.55})
    found = summary_of(before, after, top=3)
    counts = {name: each["counts"] for name, each in found["categories"].items()}
    assert counts["cat"] == {"before": 12, "after": 13, "matched": 12}
    assert counts["dog"] == {
        **{"before": 12, "after": 10, "matched": 10},
        **{"disappeared": 1, "category changed": 1},
    }
    # 2 categories and both together, four figures each: 12 tests.
    told = {(each["category"], each["figure"]): each for each in found["found"]}
    assert told.keys() == {("cat", "score"), (None, "score")}
    assert told["cat", "score"]["mean"] == pytest.approx(-0.2)
    assert told["cat", "score"]["p"] == 2 / 2**12
    assert told["cat", "score"]["corrected"] == 12 * 2 / 2**12
    assert told[None, "score"]["mean"] == pytest.approx(12 * -0.2 / 22)
    settings = [(each["name"], each["before"], each["after"]) for each in found["settings"]]
    assert settings == [("score threshold", "0.5", "0.55")]
    # The dog that is gone 0.7, the one that turned 0.7, the map 0.7 (1 - 0); and a cat's 0.2.
    worst = [(each["key"], round(each["change"], 3)) for each in found["worst"]]
    assert worst == [("<b>2.png", 0.9), ("<b>3.png", 0.9), ("<b>5.png", 0.9)]
    assert "dog 0.70 at 20, 20, 40, 40, box 1 before, is gone" in found["worst"][0]["says"]
    assert "dog 0.70 at 20, 20, 40, 40 became cat 0.60" in found["worst"][1]["says"]
    text = capsys.readouterr().out
    assert "cat: -0.2000" in text
    assert "1 disappeared, 1 changed category" in text
    part = read_part(open_store(str(Path(after).parent / "out")), "changes")
    assert part is not None
    flagged = [(each.key, each.index, each.flag, round(each.severity, 2)) for each in part.findings]
    assert ("<b>2.png", None, "disappeared", 0.7) in flagged
    assert ("<b>3.png", 1, "category changed", 0.7) in flagged
    assert ("<b>5.png", 1, "map changed", 0.7) in flagged
    assert ("<b>5.png", 0, "score changed", 0.2) in flagged
    assert part.figures["disappeared"] == 1


def test_a_row_for_each_detection(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "ROWS_AT_ONCE", 3)
    before = run("before", {n: [CAT, DOG] for n in range(NUMBER)})
    after = run("after", {n: [CAT, replace(CAT, box=(30, 0, 40, 9))] for n in range(NUMBER)})
    summary_of(before, after)
    rows = table_of(after)
    assert len(rows) == 3 * NUMBER
    assert rows[0]["key"] == "<b>0.png"
    assert [row["kind"] for row in rows[:3]] == ["matched", "disappeared", "appeared"]
    assert [row["index_before"] for row in rows[:3]] == [0, 1, None]
    assert [row["index_after"] for row in rows[:3]] == [0, None, 1]
    assert [row["change"] for row in rows[:3]] == pytest.approx([0, 0.7, 0.9])
    assert (rows[0]["iou"], rows[0]["correlation"], rows[0]["layer"]) == (1, 1, "emitting")
    assert (rows[1]["iou"], rows[1]["correlation"], rows[1]["layer"]) == (None, None, None)


def test_too_few_pictures_are_said(
    run: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = run("before", {n: [CAT] for n in range(3)})
    after = run("after", {n: [replace(CAT, score=0.6)] for n in range(3)})
    found = summary_of(before, after)
    assert {test["p"] for test in found["tests"]} == {None}
    assert "Nothing was tested: no category is on 6 pictures." in capsys.readouterr().out
    part = read_part(open_store(str(Path(after).parent / "out")), "changes")
    assert part is not None
    (table,) = (each for each in part.tables if each.title == "Detections by category")
    assert [row[-1] for row in table.rows] == ["", "too few pictures"]


def test_only_the_most_changed_are_kept() -> None:
    random = np.random.default_rng(0)
    scores = random.permutation(50) / 50
    tally = Tally(5)
    for place, score in enumerate(scores):
        row = {"category": "cat", "score": score}
        tally.add(f"{place:02}", [Change("appeared", None, row)])
    expected = sorted(range(50), key=lambda place: -scores[place])[:5]
    assert [each.key for each in tally.worst()] == [f"{place:02}" for place in expected]
    assert tally.changed_pictures == 49


def test_runs_that_cannot_be_compared(
    run: Callable[..., str], make_job: MakeJob, tmp_path: Path
) -> None:
    before = run("before", {})
    put(str(tmp_path / "other"), {"x.png": picture_bytes()})
    job = make_job(str(tmp_path / "other"), str(tmp_path / "after"), overlays="none")
    job.run()
    options = CompareOptions(before, job.output, str(tmp_path / "out"))
    said = r"no picture in common \(before alone are <b>0.png, "
    with pytest.raises(NothingToMeasureError, match=said):
        compare(options)
    assert main(["compare", before, job.output, "--output", str(tmp_path / "out")]) == 7
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="there is no run at"):
        compare(replace(options, after=str(tmp_path / "none")))


def test_runs_in_a_bucket(make_job: MakeJob, bucket: str) -> None:
    put(f"{bucket}/in", {f"a b/{n}.png": picture_bytes(SIDE, SIDE, n) for n in range(2)})
    for name, script in (("before", {0: [CAT], 1: [CAT, DOG]}), ("after", {0: [CAT], 1: [CAT]})):
        job = make_job(f"{bucket}/in", f"{bucket}/{name}", overlays="none")
        job.explainer = Scripted(script)
        job.run()
    options = CompareOptions(f"{bucket}/before", f"{bucket}/after", f"{bucket}/after")
    assert compare(options) == 0
    output = open_store(f"{bucket}/after")
    told = json.loads(output.read("changes.json"))
    assert (told["pictures"]["compared"], told["pictures"]["changed"]) == (2, 1)
    assert [(each["key"], each["change"]) for each in told["worst"]] == [
        ("a b/1.png", pytest.approx(0.7))
    ]
    kinds = [(row["key"], row["kind"]) for row in read_rows(output.read("changes.parquet"))]
    assert kinds == [
        *(("a b/0.png", "matched"), ("a b/1.png", "matched")),
        ("a b/1.png", "disappeared"),
    ]
    part = read_part(output, "changes")
    assert part is not None
    assert [(each.key, each.flag) for each in part.findings] == [("a b/1.png", "disappeared")]
    # Another picture under the same name, which in a bucket the ETag tells.
    put(f"{bucket}/in", {"a b/0.png": picture_bytes(SIDE, SIDE, 7)})
    make_job(f"{bucket}/in", f"{bucket}/later", overlays="none").run()
    assert compare(replace(options, after=f"{bucket}/later", output=f"{bucket}/out")) == 0
    told = json.loads(open_store(f"{bucket}/out").read("changes.json"))
    assert told["pictures"]["compared"] == 1
    assert told["pictures"]["other_content"] == {"count": 1, "first": ["a b/0.png"]}


def test_keys_and_categories_steer_no_terminal(
    make_job: MakeJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for name, red, script in (
        ("before", "\x1b[31mred.png", {7: [replace(CAT, category="\x1b[32mcat")]}),
        ("after", "\x1b[31mred.png", {}),
        ("other", "\x1b[35mother.png", {}),
    ):
        put(str(tmp_path / f"{name}-in"), {red: picture_bytes(SIDE, SIDE, 7)})
        job = make_job(str(tmp_path / f"{name}-in"), str(tmp_path / name), overlays="none")
        job.explainer = Scripted(script)
        job.run()
        outputs.append(job.output)
    before, after, other = outputs
    line = ["compare", before, "--output", str(tmp_path / "out")]
    assert main([*line, after]) == 0
    assert main([*line, other]) == 7
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert r"\x1b[31mred.png: \x1b[32mcat 0.90 at 2, 2, 22, 12, box 0 before, is gone" in said.out
    assert r"after alone are \x1b[35mother.png" in said.err


def test_the_command_line(run: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    line = "compare one two --output out --alpha 0.01 --iou 0.4 --top 7 --json"
    assert parse(line.split()) == CompareOptions("one", "two", "out", 0.01, 0.4, 7, True)
    plain = ["compare", "one", "two", "--output", "out"]
    assert parse(plain) == CompareOptions("one", "two", "out")
    with pytest.raises(SystemExit):
        parse([*plain, "--alpha", "0"])
    before = run("before", {0: [CAT]})
    capsys.readouterr()
    assert main(["compare", before, before, "--output", before, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"]["changed"] == 0
    assert Path(before, "audit", "changes.parquet").exists()

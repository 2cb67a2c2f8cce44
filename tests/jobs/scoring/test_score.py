"""Scores of runs and of saved boxes, from the command line down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archives.stores.opening import open_store
from jobs.__main__ import main, parse
from jobs.scoring.options import TRUTH_FORMATS, ScoreOptions
from jobs.scoring.saved_boxes import SavedBoxes
from jobs.truth.reading import AUTO, FORMS
from tests.conftest import put
from tests.jobs.conftest import CURSED_WIDTH, Job, MakeJob, picture_bytes
from tests.jobs.scoring.test_saved_boxes import row
from tests.jobs.truth.test_voc import thing, xml

Scores = Callable[..., dict[str, Any]]


@pytest.fixture
def scores(capsys: pytest.CaptureFixture[str]) -> Scores:
    """What `jobs score --json` prints, which is what it writes."""

    def run(place: str, *arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["score", place, "--json", *arguments]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert found == json.loads(open_store(place).read("scores.json"))
        return found

    return run


@pytest.fixture
def run(tmp_path: Path, make_job: MakeJob) -> Job:
    """A run that found in a.png and b.png a cat (0.75) and a dog (0.5) at (1, 2) to (6, 5), on two
    layers each; c.png is black; d.png has no annotations, and e.png fails."""
    sizes = {"a": (12, 100), "b": (12, 200), "c": (12, 0), "d": (12, 100), "e": (CURSED_WIDTH, 90)}
    pictures = {f"{n}.png": picture_bytes(w, grey=g) for n, (w, g) in sizes.items()}
    put(str(tmp_path / "in"), pictures)
    box = "2 3 6 5"
    truth = {
        "a": xml(thing("cat", box), thing("dog", "2 3 6 4")),
        "b": xml(thing("dog", box, "<difficult>1</difficult>"), thing("cow", box)),
        "c": xml(thing("cat", box)),
    }
    put(str(tmp_path / "Annotations"), {f"{name}.xml": data for name, data in truth.items()})
    job = make_job(str(tmp_path / "in"), request={"layer": "emitting,C3"}, overlays="none")
    assert job.run() == 3
    return job


def test_a_run_by_hand(run: Job, tmp_path: Path, scores: Scores) -> None:
    found = scores(
        run.output, "--truth", str(tmp_path), "--iou", "0.7", "0.6", "--score-threshold", "0.6"
    )
    assert [each["iou"] for each in found["scores"]] == [0.6, 0.7]
    loose, strict = (each["categories"] for each in found["scores"])
    # Of two cats one is found, and one box is of none (b.png's, as sure).
    cat = {"objects": 2, "detections": 2, "recall": 0.5, "precision": 0.5}
    assert loose["cat"] == {**cat, "every_point": 0.5, "eleven_point": pytest.approx(6 / 11)}
    # The dog's overlap is 10 / 15; b.png's is difficult; none scores 0.6.
    dog = {"objects": 1, "detections": 1, "recall": 0.0, "precision": None}
    assert loose["dog"] == {**dog, "every_point": 1.0, "eleven_point": pytest.approx(1)}
    assert strict["dog"] == {**dog, "every_point": 0.0, "eleven_point": 0.0}
    cow = {"objects": 1, "detections": 0, "recall": 0.0, "precision": None}
    assert loose["cow"] == {**cow, "every_point": 0.0, "eleven_point": 0.0}
    assert found["scores"][0]["mean"]["every_point"] == pytest.approx(0.5)
    told = "\n".join(found["notes"])
    for said in (
        "score at least 0.5, the surest 100 of a picture",
        "average precision is a lower bound",
        "1 picture without ground truth: left out",
        "1 picture failed in the run: left out",
        "WARNING: categories of the ground truth alone: cow (1)",
    ):
        assert said in told
    assert "categories of detections alone" not in told


def test_a_run_of_one_category(tmp_path: Path, run: Job, make_job: MakeJob, scores: Scores) -> None:
    other = make_job(
        run.source, str(tmp_path / "out2"), request={"category": "cat"}, overlays="none"
    )
    assert other.run() == 3
    found = scores(other.output, "--truth", str(tmp_path))
    assert found["scores"][0]["categories"]["dog"]["objects"] == 0  # the quick explainer finds some
    assert "The run explained cat alone: no other category is scored." in found["notes"]


def test_saved_boxes_by_map_with_cocos_figures(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        row("a", "cat", 0, score=0.9, map="odam", threshold=0.3),
        row("a", "cat", 20, score=0.8, map="odam", threshold=0.5),
    ]
    SavedBoxes.of(found, [row("a", "cat", 0)]).write(open_store(place))
    assert main(["score", place, "--coco"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == [
        "odam, threshold 0.3, IoU 0.5; recall and precision of boxes scoring at least 0.5",
        "category      objects      boxes         AP  AP 11-point     recall  precision",
        "cat                 1          1     1.0000       1.0000     1.0000     1.0000",
    ]
    assert "odam, threshold 0.5, COCO (IoU .50:.05:.95)" in shown
    assert shown.count("  1.0000  AP of cat") == shown.count("  0.0000  AP of cat") == 1
    assert shown[-1] == f"{place}/scores.json"


def test_pixels_of_text_files(tmp_path: Path, scores: Scores) -> None:
    files = {"detections/a.txt": b"cat .9 0 0 9 4", "groundtruths/a.txt": b"cat 0 0 9 9"}
    put(str(tmp_path), files)
    # 36 of 81; with edges that are pixels 50 of 100.
    for pixel, expected in (("0", 0.0), ("1", 1.0)):
        found = scores(str(tmp_path), "--pixel", pixel)
        assert found["scores"][0]["mean"]["every_point"] == expected


def test_scores_go_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SavedBoxes.of([], [row("a", "cat", 0)]).write(open_store(str(tmp_path / "in")))
    assert main(["score", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/scores.json").is_file()
    assert not (tmp_path / "in/scores.json").exists()


def test_what_cannot_be_scored(
    tmp_path: Path, run: Job, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, other = str(tmp_path / "saved"), str(tmp_path / "other")
    SavedBoxes.of([row("a", "Cat", 0, score=1)], [row("a", "cat", 0)]).write(open_store(saved))
    put(other, {"Annotations/x.xml": xml()})
    summed = make_job(run.source, str(tmp_path / "sum"), request={"candidates": 3}, overlays="none")
    summed.run()
    for arguments, said in (
        ([run.output], "a run needs --truth"),
        ([run.output, "--truth", other], "none of the run's 4 pictures has ground truth at"),
        ([run.output, "--truth", str(tmp_path), "--pixel", "1"], "--pixel 1 is for saved boxes"),
        ([summed.output, "--truth", str(tmp_path)], "the run was made with --candidates"),
        ([saved, "--truth", other], "give no --truth"),
        ([saved], "detections have Cat (1); the ground truth has cat (1); the names have to be"),
        ([other], "there is nothing to score at"),
    ):
        capsys.readouterr()
        assert main(["score", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_the_command_line() -> None:
    assert parse(["score", "out"]) == ScoreOptions("out")
    text = """score s3://b/out --truth s3://b/t --truth-format coco --categories cat dog
        --iou 0.5 0.3 0.5 --score-threshold 0.2 --pixel 1 --coco --output o --json"""
    expected = ScoreOptions(
        *("s3://b/out", "s3://b/t", "coco", ("cat", "dog"), (0.3, 0.5), 0.2, 1, True, "o", True)
    )
    assert parse(text.split()) == expected
    assert (AUTO, *FORMS) == TRUTH_FORMATS


@pytest.mark.parametrize("given", ["--iou 0", "--iou 2", "--truth-format x", "--pixel 2"])
def test_wrong_usage(given: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["score", "out", *given.split()])
    assert caught.value.code == 2

"""Methods measured beside the controls: in this process, and by the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from archives.errors import ConflictError, UsageError
from handlers.explainer import Explainer
from handlers.images import to_image
from handlers.metrics.controls import gaussian_in_box
from handlers.metrics.faithfulness import FaithfulnessOptions
from handlers.schema import ExplainRequest, RequestError
from jobs.__main__ import parse
from jobs.demo.scenes import CATEGORIES, HELD_OUT_SEEDS, SceneOptions, make_scene
from jobs.errors import NothingToMeasureError
from jobs.evaluation import evaluate as module
from jobs.evaluation.evaluate import evaluate
from jobs.evaluation.measure import (
    CONTROLS,
    GAUSSIAN,
    explained,
    gaussian,
    measure,
    random_fields,
    with_map,
)
from jobs.evaluation.subjects import MeasureOptions, chosen_boxes
from jobs.options import EvaluateOptions
from jobs.scoring.matching import overlaps
from jobs.truth.objects import Objects
from tests.conftest import scene_picture

QUICK = MeasureOptions(per_picture=2, faithfulness=FaithfulnessOptions(steps=3))


@pytest.fixture
def options(tmp_path: Path) -> EvaluateOptions:
    (tmp_path / "in").mkdir()
    for number in range(2):
        to_image(scene_picture(number)).save(tmp_path / f"in/{number}.png")
    return EvaluateOptions(
        "demo.mar",
        (str(tmp_path / "in"),),
        str(tmp_path / "out"),
        controls=True,
        methods=("odam",),
        layers=("emitting", "emitting+backbone.body.block3"),
        detections=2,
        per_picture=1,
        steps=2,
    )


def test_a_map_of_the_box_beats_one_of_the_rest(demo: Explainer) -> None:
    picture = scene_picture(4)
    subjects = chosen_boxes(demo, picture, QUICK)

    def box_and_rest(sign: float) -> Any:
        def make(picture: Any, boxes: Any) -> Any:
            height, width = picture.shape[1:]
            maps = []
            for each in boxes:
                heat = torch.zeros(height, width)
                x1, y1, x2, y2 = (round(edge) for edge in each.box)
                heat[y1:y2, x1:x2] = 1.0
                maps.append(with_map(picture, each, heat if sign > 0 else 1 - heat))
            return maps

        return make

    makers = {"box": box_and_rest(1), "rest": box_and_rest(-1), GAUSSIAN: gaussian}
    rows = measure(demo, picture, subjects, makers, QUICK)
    assert [each["map"] for each in rows[::2]] == ["box", "rest", GAUSSIAN]
    box, rest, _ = rows[::2]
    assert (box["pointing"], rest["pointing"]) == (1, 0)
    assert box["energy"] > 0.95
    assert rest["energy"] < 0.05
    assert box["deletion"] < rest["deletion"]
    assert box["insertion"] > rest["insertion"]
    for each in rows:
        assert each["deletion_score_raw"] == pytest.approx(each["deletion_score"] * each["score"])
        # Of itself a box has all of D-RISE's similarity.
        assert each["deletion_raw"] == pytest.approx(each["deletion"], rel=1e-5)
        # Three points, the first of which is the whole picture.
        assert each["deletion"] >= 0.25


def test_what_curves_share_is_looked_at_once(
    demo: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, looked = scene_picture(4), []
    subjects = chosen_boxes(demo, picture, QUICK)
    found = demo.found

    def noted(pictures: Any, batch_size: Any) -> Any:
        looked.append(len(pictures))
        return found(pictures, batch_size)

    monkeypatch.setattr(demo, "found", noted)
    rows = measure(demo, picture, subjects, {"one": gaussian, "two": random_fields(0)}, QUICK)
    assert len(rows) == 4
    # The picture, without all of it, blurred; and of two boxes, maps and curves one in between.
    assert sum(looked) == 3 + 2 * 2 * 2


def test_controls_and_methods_are_of_the_same_boxes(demo: Explainer) -> None:
    picture = scene_picture(4)
    boxes = chosen_boxes(demo, picture, replace(QUICK, per_picture=3)).boxes
    assert len(boxes) == 3
    assert min(each.score for each in boxes) > 0.5
    stock = demo.explain([picture])[0]
    for make in (gaussian, random_fields(0), explained(demo, ExplainRequest(method="gradcam"))):
        maps = make(picture, boxes)
        assert [each.index for each in maps] == [each.index for each in boxes]
        for each in maps:
            assert each.box == pytest.approx(stock[each.index].box, abs=0.05)
    one, other = (random_fields(0)(picture, boxes)[place].heatmap for place in (0, 1))
    assert not torch.equal(one, other)


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

    monkeypatch.setattr(module, "measure", noting)
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


@dataclass
class FakeTruth:
    """Objects by key."""

    known: dict[str, Objects]
    categories: tuple[str, ...] = ()

    def objects(self, key: str) -> Objects | None:
        return self.known.get(key)


def scene_objects(number: int, masks: bool = True) -> Objects:
    scene = make_scene(HELD_OUT_SEEDS.start + number, SceneOptions())
    several = [scene.owners == place for place in range(1, len(scene.labels) + 1)]
    nothing = np.zeros(len(several), dtype=np.bool_)
    return Objects(
        boxes=scene.boxes.astype(np.float64),
        categories=tuple(CATEGORIES[label - 1] for label in scene.labels),
        difficult=nothing,
        crowd=nothing,
        masks=tuple(several if masks else [None] * len(several)),
    )


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> FakeTruth:
    """Of the pictures of `options`."""
    fake = FakeTruth({f"{number}.png": scene_objects(number) for number in range(2)})
    reading = ModuleType("jobs.truth.reading")
    reading.read_truth = lambda *asked, **_: asked[:2] == ("there", "voc") and fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jobs.truth.reading", reading)
    return fake


def test_true_objects_are_what_maps_are_held_against(
    options: EvaluateOptions,
    demo: Explainer,
    truth: FakeTruth,
    capsys: pytest.CaptureFixture[str],
) -> None:
    truth.known["1.png"] = scene_objects(1, masks=False)
    to_image(scene_picture(2)).save(Path(options.inputs[0], "unknown.png"))
    asked = replace(options, truth="there", truth_format="voc", per_picture=2, detections=4)
    assert evaluate(asked, demo) == 0
    record = json.loads(Path(options.output, "evaluation.json").read_text())
    assert record["settings"]["score_threshold"] == 0.1
    assert list(record["pictures"]) == ["0.png", "1.png"]
    rows = {
        key: [row for row in rows if row["map"] == GAUSSIAN]
        for key, rows in record["pictures"].items()
    }
    for number, key in enumerate(rows):
        found = record["detections"][key]
        picture = scene_picture(number)
        height, width = picture.shape[1:]
        stock = demo.detect([picture])[0]
        assert found["scores"] == pytest.approx(stock.scores.tolist(), abs=1e-4)
        for row in rows[key]:
            heat = gaussian_in_box(tuple(stock.boxes[row["index"]].tolist()), height, width)
            objects = truth.known[key]
            shares = overlaps(stock.boxes[row["index"]][None].double().numpy(), objects.boxes)[0]
            own = int(shares.argmax())
            assert objects.categories[own] == demo.categories[stock.labels[row["index"]]]
            assert row["iou"] == pytest.approx(shares[own], abs=1e-3)
            mask = objects.masks[own]
            if mask is None:
                assert row["energy_mask"] is row["vea"] is None
                continue
            least = float(heat.min())
            share = float((heat - least)[torch.from_numpy(mask)].sum() / (heat - least).sum())
            assert row["energy_mask"] == pytest.approx(share, abs=1e-3)
    said = capsys.readouterr()
    assert "1 picture without annotations left out: unknown.png" in said.err
    assert "| map | pointing | energy | vea, box |" in said.out
    assert "boxes whose do: pointing, mask 2, energy, mask 2, vea 2" in said.out
    # The same again measures nothing; without the truth it is another evaluation.
    assert evaluate(asked, demo) == 0
    with pytest.raises(ConflictError, match="its figures, truth, score_threshold differ"):
        evaluate(replace(asked, truth=None), demo)


def test_what_cannot_be_held_against_a_truth(
    options: EvaluateOptions,
    demo: Explainer,
    truth: FakeTruth,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = replace(options, truth="there", truth_format="voc", methods=(), controls=True)
    for key, objects in truth.known.items():
        truth.known[key] = replace(objects, categories=("ghost",) * len(objects))
    with pytest.raises(
        UsageError, match=r"scores more than 0\.1 and is matched with a true object"
    ):
        evaluate(asked, demo)
    assert "1 category annotated, and unknown to the detector: ghost" in capsys.readouterr().err
    truth.known.clear()
    with pytest.raises(UsageError, match="none of 2 pictures has annotations in there"):
        evaluate(replace(asked, output=f"{options.output}-2"), demo)


def test_too_few_pictures_are_said(
    options: EvaluateOptions, demo: Explainer, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(options.inputs[0], "broken.png").write_bytes(b"no picture")
    few = replace(options, methods=(), detections=50)
    assert evaluate(few, demo) == 3
    said = capsys.readouterr().err
    assert "broken.png: not a picture" in said
    assert "only 2 of 50 boxes" in said


def test_arguments() -> None:
    line = "evaluate --controls --archive a.mar --input in --output out --methods odam,gradcam"
    line += " --layers emitting a+b --detections 7 --target probability --steps 11 --seed 3"
    maps = ("method=drise masks=9", "smooth=0.2")
    assert parse([*line.split(), "--maps", *maps]) == EvaluateOptions(
        "a.mar",
        ("in",),
        "out",
        controls=True,
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
    command = [sys.executable, "-m", "jobs", "evaluate", "--controls"]
    command += ["--archive", str(demo_archive), "--input", *options.inputs]
    command += ["--output", options.output, "--methods", "odam", "--layers", "emitting"]
    command += ["--detections", "1", "--per-picture", "1", "--steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| odam emitting |" in done.stdout
    command[-1] = "3"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr

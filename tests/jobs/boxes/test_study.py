"""The whole command in this process: a detector's maps, and a classifier's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from archives.errors import ConflictError, UsageError
from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from handlers.images import decode_picture
from handlers.schema import ExplainRequest, RequestError
from jobs.boxes import making, saved_maps
from jobs.boxes.map_boxes import boxes_of_map
from jobs.boxes.options import AgainOptions, BoxesOptions, BoxStep
from jobs.boxes.saved_maps import SavedMaps
from jobs.boxes.study import boxes
from jobs.demo.scenes import CATEGORIES
from tests.jobs.boxes.conftest import SceneTruth, scene_of


@pytest.fixture
def options(voc: Path, tmp_path: Path) -> BoxesOptions:
    return BoxesOptions(
        archive="demo.mar",
        inputs=(str(voc),),
        output=str(tmp_path / "out"),
        thresholds=(0.2, 0.6),
        controls=True,
    )


def read(place: str, name: str = "boxes.json") -> Any:
    return json.loads(Path(place, name).read_text())


def rows(place: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(Path(place, f"boxes/{name}.parquet")).to_pylist()
    return found


@pytest.fixture(scope="module")
def classifier() -> Explainer:
    torch.manual_seed(3)
    names = ("cup", *CATEGORIES, "beaker")
    model = build_model("squeezenet1_1", len(names), {"size": 64, "resize": "stretch"})
    return Explainer.from_model(model.eval(), names)


def test_a_detector_on_a_voc_folder(
    options: BoxesOptions, demo: Explainer, truth: SceneTruth, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boxes(options, demo) == 0
    assert truth.asked == [(options.inputs[0], "auto")]
    page = Path(options.output, "boxes.md").read_text()
    assert page in capsys.readouterr().out
    summary = read(options.output)
    assert summary["sets"] == {"all": 3, "tune": 1, "score": 2}
    # The detector finds nearly all, and a low threshold gives boxes that are about right.
    means = {(each["map"], each["threshold"], each["iou"]): each for each in summary["means"]}
    names = {each for each, _, _ in means}
    assert names == {
        *("map", "control: Gaussian at the picture's middle", "control: Gaussian in the box", "")
    }
    own = [each for each in summary["means"] if (each["map"], each["set"]) == ("", "all")]
    assert min(each["recall"] for each in own) > 0.9
    at = {each["threshold"]: each for each in summary["means"] if each["map"] == "map"}
    assert at[0.2]["ap"] > 0.5 > at[0.6]["ap"]

    # The saved boxes are those of the maps that the explainer gives.
    found = [each for each in rows(options.output, "detections") if each["map"] == "map"]
    picture = decode_picture(Path(options.inputs[0], "JPEGImages/scene_0.jpg").read_bytes())
    (explained,) = demo.explain([picture], demo.resolved(demo.defaults))
    assert {each["key"] for each in found} == {f"scene_{number}.jpg" for number in range(3)}
    mine = [each for each in found if each["key"] == "scene_0.jpg"]
    assert len(mine) == 2 * len(explained)
    step = BoxStep(thresholds=options.thresholds)
    for place, each in enumerate(explained):
        made = boxes_of_map(each.on_picture().numpy(), step)
        saved = [[row[edge] for edge in ("x1", "y1", "x2", "y2")] for row in mine[2 * place :][:2]]
        # Kept as float16: an edge may move by a pixel.
        np.testing.assert_allclose(saved, made.boxes[made.largest], atol=1)
        assert mine[2 * place]["score"] == pytest.approx(each.score, abs=1e-4)
        assert mine[2 * place]["category"] == each.category
    true = [each for each in rows(options.output, "truths") if each["key"] == "scene_1.jpg"]
    assert [each["x1"] for each in true] == scene_of(1).boxes[:, 0].tolist()
    with Image.open(Path(options.output, "contact-sheet.jpg")) as sheet:
        assert sheet.width > 3 * 200


def test_the_same_again_makes_no_map_again(
    options: BoxesOptions, demo: Explainer, truth: SceneTruth, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(options, controls=False)
    for module in (making, saved_maps):
        monkeypatch.setattr(module, "CHUNK", 2)
    # An interruption after the first chunk.
    commit = saved_maps.commit

    def once(output: Any, number: int, *arguments: Any) -> None:
        if number:
            raise KeyboardInterrupt
        commit(output, number, *arguments)

    monkeypatch.setattr(saved_maps, "commit", once)
    with pytest.raises(KeyboardInterrupt):
        boxes(few, demo)
    with pytest.raises(UsageError, match="they are not all made; run"):
        boxes(AgainOptions(again=options.output))
    numbers: list[int] = []

    def counted(output: Any, number: int, *arguments: Any) -> None:
        numbers.append(number)
        commit(output, number, *arguments)

    monkeypatch.setattr(saved_maps, "commit", counted)
    assert boxes(few, demo) == 0
    assert numbers == [1]
    first = read(options.output)
    # Another box step is scored anew, and makes no map.
    assert boxes(replace(few, thresholds=(0.4,)), demo) == 0
    assert numbers == [1]
    assert {each["threshold"] for each in read(options.output)["means"]} == {0.4}
    # Nor does it without the network; here or elsewhere.
    again = AgainOptions(again=options.output, thresholds=few.thresholds)
    assert boxes(replace(again, output=f"{options.output}2")) == 0
    assert read(f"{options.output}2") == first
    assert boxes(again) == 0
    assert read(options.output) == first


def test_other_maps_are_not_mixed(
    options: BoxesOptions, demo: Explainer, truth: SceneTruth, tmp_path: Path
) -> None:
    assert boxes(options, demo) == 0
    other = replace(options, request={"method": "gradcam"}, score_split="test")
    with pytest.raises(ConflictError, match="their pictures, request, score_split differ"):
        boxes(other, demo)
    again = AgainOptions(again=options.output, output=str(tmp_path / "other"))
    assert boxes(replace(other, output=str(tmp_path / "other")), demo) == 0
    with pytest.raises(ConflictError, match="has maps of its own"):
        boxes(again)
    table = Path(options.output, "maps/00000.truth.parquet")
    table.write_bytes(table.read_bytes() + b"x")
    with pytest.raises(ConflictError, match="is not what was committed"):
        boxes(AgainOptions(again=options.output))
    Path(options.output, "maps.json").write_text("[]")
    with pytest.raises(ConflictError, match="is of no `jobs boxes`"):
        boxes(options, demo)
    with pytest.raises(UsageError, match=r"it holds no maps\.json"):
        boxes(AgainOptions(again=str(tmp_path)))


def test_named_splits(options: BoxesOptions, demo: Explainer, truth: SceneTruth) -> None:
    named = replace(options, tune_split="trainval", score_split="test", controls=False)
    assert boxes(named, demo) == 0
    summary = read(options.output)
    assert summary["sets"] == {"all": 3, "tune": 2, "score": 1}
    splits = {each.key: each.split for each in SavedMaps.open(options.output).pictures()}
    assert splits == {"scene_0.jpg": "tune", "scene_1.jpg": "tune", "scene_2.jpg": "score"}
    page = Path(options.output, "boxes.md").read_text()
    assert "## By threshold, on the scored split (1)" in page
    only = replace(named, tune_split=None, output=f"{options.output}-only")
    assert boxes(only, demo) == 0
    assert (read(only.output)["sets"], read(only.output)["chosen"]) == ({"all": 1}, [])
    Path(options.inputs[0], "ImageSets/Main/test.txt").write_text("scene_1\n")
    with pytest.raises(UsageError, match="1 picture, such as scene_1, are in trainval and in test"):
        boxes(replace(named, output=f"{options.output}-both"), demo)


def test_what_one_picture_breaks_ends_nothing(
    options: BoxesOptions, demo: Explainer, truth: SceneTruth, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(options.inputs[0], "JPEGImages")
    truth.bad, truth.unknown = "scene_0.jpg", "scene_1.jpg"
    Image.fromarray(scene_of(3).picture).save(folder / "scene_3.jpg")
    (folder / "scene_4.jpg").write_bytes(b"no picture")
    assert boxes(options, demo) == 3
    said = capsys.readouterr().err
    assert "jobs: scene_0.jpg: scene_0.jpg: no annotations" in said
    assert "jobs: scene_4.jpg: not a picture" in said
    assert "nobody annotated 1 picture" in said
    assert read(options.output)["sets"]["all"] == 2
    # Here, too; and the sheet does without a picture that has gone.
    (folder / "scene_3.jpg").unlink()
    assert boxes(AgainOptions(again=options.output)) == 3


def test_a_classifier_is_asked_for_what_is_there(
    options: BoxesOptions, classifier: Explainer, truth: SceneTruth, tmp_path: Path
) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("mug: [cup, mug, beaker]\nfish: fish\n")
    wanted = replace(options, categories_map=str(path), batch_size=2)
    assert boxes(wanted, classifier) == 0
    maps = {each.key: each for each in SavedMaps.open(options.output).pictures()}
    for number in range(3):
        own = maps[f"scene_{number}.jpg"]
        there = {CATEGORIES[label - 1] for label in scene_of(number).labels} & {"mug", "fish"}
        assert {each.category for each in own.maps} == there
        picture = decode_picture(
            Path(options.inputs[0], f"JPEGImages/scene_{number}.jpg").read_bytes()
        )
        (ranked,) = classifier.detect([picture])
        for each in own.maps:
            labels = {"mug": (0, 3, 7), "fish": (1,)}[each.category]
            best = next(label for label in ranked.labels.tolist() if label in labels)
            assert each.explanation.label == best
            request = ExplainRequest("gradcam", category=classifier.categories[best])
            (alone,) = classifier.explain([picture], request)[0]
            assert each.explanation.score == pytest.approx(alone.score, abs=1e-4)
            torch.testing.assert_close(
                each.explanation.heatmap, alone.heatmap, rtol=2e-3, atol=1e-9
            )
    kinds = {each["map"] for each in read(options.output)["means"]}
    assert kinds == {"map", "control: Gaussian at the picture's middle"}
    page = Path(options.output, "boxes.md").read_text()
    assert "SqueezeNet, gradcam on the emitting layer, of the classes that are truly there." in page


def test_a_classifier_s_best_class(
    options: BoxesOptions, classifier: Explainer, truth: SceneTruth
) -> None:
    assert boxes(replace(options, classes="predicted"), classifier) == 0
    for each in SavedMaps.open(options.output).pictures():
        picture = decode_picture(Path(options.inputs[0], "JPEGImages", each.key).read_bytes())
        name = classifier.categories[int(classifier.detect([picture])[0].labels[0])]
        assert [own.category for own in each.maps] == ([name] if name in CATEGORIES else [])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"classes": "predicted"}, UsageError, "is for classifiers; demo.mar is a FasterRCNN"),
        ({"request": {"layer": "C3,C4"}}, RequestError, "layer: .*; allowed: one name"),
        ({"request": {"target": "box_score"}}, RequestError, "target: .* its own of"),
        ({"categories": ("cow",)}, UsageError, "cow: expected categories that both"),
        ({"score_split": "none"}, UsageError, "there is no list ImageSets/Main/none.txt"),
        ({"request": {"score_threshold": 1.0}}, None, ""),
    ],
)
def test_what_cannot_be_asked(
    changes: dict[str, Any],
    error: type[Exception] | None,
    message: str,
    options: BoxesOptions,
    demo: Explainer,
    truth: SceneTruth,
) -> None:
    if error is None:  # a detector that finds nothing scores nothing
        assert boxes(replace(options, **changes), demo) == 0
        assert {each["recall"] for each in read(options.output)["means"]} == {0.0}
        return
    with pytest.raises(error, match=message):
        boxes(replace(options, **changes), demo)
    assert not Path(options.output).exists()


def test_pictures_need_to_be_told_where_their_truth_is(
    options: BoxesOptions, demo: Explainer, truth: SceneTruth
) -> None:
    pictures = replace(options, inputs=(f"{options.inputs[0]}/JPEGImages",))
    with pytest.raises(UsageError, match=r"is no VOC folder .* say with --truth where"):
        boxes(pictures, demo)
    assert boxes(replace(pictures, truth="there", truth_format="voc"), demo) == 0
    assert truth.asked == [("there", "voc")]


def test_nothing_to_score(options: BoxesOptions, demo: Explainer, truth: SceneTruth) -> None:
    truth.empty = True
    with pytest.raises(UsageError, match="nothing to score: of 3 pictures none has an object of"):
        boxes(options, demo)


def test_categories_that_nobody_looked_for_are_named(
    options: BoxesOptions, demo: Explainer, truth: SceneTruth
) -> None:
    names = [CATEGORIES[label - 1] for number in range(3) for label in scene_of(number).labels]
    wanted = max(names, key=names.count)
    assert boxes(replace(options, categories=(wanted,)), demo) == 0
    other = min(set(names) - {wanted})
    page = Path(options.output, "boxes.md").read_text()
    assert f"were not looked for: {other} ({names.count(other)})" in page
    assert {each["category"] for each in rows(options.output, "truths")} == {wanted}


def test_a_key_steers_no_terminal(
    options: BoxesOptions, demo: Explainer, truth: SceneTruth, capsys: pytest.CaptureFixture[str]
) -> None:
    truth.bad = "\x1b[2J.jpg"
    Path(options.inputs[0], "JPEGImages", truth.bad).write_bytes(b"no picture")
    assert boxes(options, demo) == 3
    assert "\x1b" not in capsys.readouterr().err

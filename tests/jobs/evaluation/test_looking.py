"""Evaluations with true objects: what is matched, detected besides, and kept."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from archives.errors import ConflictError, UsageError
from archives.stores.opening import open_store
from handlers.explainer import Explainer
from handlers.images import to_image
from handlers.metrics.controls import gaussian_in_box
from jobs.audit.findings import read_part
from jobs.demo.scenes import CATEGORIES, HELD_OUT_SEEDS, SceneOptions, make_scene
from jobs.errors import NothingToMeasureError
from jobs.evaluation import evaluate as module
from jobs.evaluation import record
from jobs.evaluation.evaluate import evaluate
from jobs.evaluation.measure import (
    GAUSSIAN,
)
from jobs.options import EvaluateOptions
from jobs.scoring.matching import overlaps
from jobs.truth.objects import Objects
from tests.conftest import scene_picture


@dataclass
class FakeTruth:
    """Objects by key."""

    known: dict[str, Objects]
    categories: tuple[str, ...] = ()
    form: str = "voc"
    print: str = "as it was"

    def fingerprint(self) -> str:
        return self.print

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
    text = "its figures, truth, truth_format, annotations, score_threshold differ"
    with pytest.raises(ConflictError, match=text):
        evaluate(replace(asked, truth=None), demo)
    truth.print = "another"
    with pytest.raises(ConflictError, match="another evaluation's: its annotations differ"):
        evaluate(asked, demo)


def test_what_cannot_be_held_against_a_truth(
    options: EvaluateOptions,
    demo: Explainer,
    truth: FakeTruth,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = replace(options, truth="there", truth_format="voc", methods=(), maps=("default",))
    for key, objects in truth.known.items():
        truth.known[key] = replace(objects, categories=("ghost",) * len(objects))
    assert evaluate(asked, demo) == 0
    said = capsys.readouterr()
    assert "1 category annotated, and unknown to the detector: ghost" in said.err
    assert "only 0 of 2 boxes" in said.err
    assert "No box is matched with a true object: no map was measured.\n\nThe detector:" in said.out
    part = read_part(open_store(options.output), "evaluation")
    assert part is not None
    assert (part.figures["mean AP50"], part.figures["boxes measured"]) == (0, 0)
    # No figure of a map reaches anything.
    for text in ("default energy>=0", "mean AP50>=0"):
        assert evaluate(replace(asked, thresholds=(text,)), demo) == 4
    truth.known.clear()
    with pytest.raises(UsageError, match="none of 2 pictures has annotations in there"):
        evaluate(replace(asked, output=f"{options.output}-2"), demo)


def test_without_a_true_object_there_is_nothing_to_score_by(
    options: EvaluateOptions, demo: Explainer, truth: FakeTruth
) -> None:
    nothing = scene_objects(0).only(np.zeros(len(scene_objects(0)), dtype=np.bool_))
    truth.known = dict.fromkeys(truth.known, nothing)
    with pytest.raises(NothingToMeasureError, match="and is matched with a true object in 2 pict"):
        evaluate(replace(options, truth="there", truth_format="voc", methods=()), demo)


def test_detections_for_average_precision_are_kept_and_one_bad_picture_fails_alone(
    options: EvaluateOptions,
    demo: Explainer,
    truth: FakeTruth,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(2, 5):
        to_image(scene_picture(number)).save(Path(options.inputs[0], f"{number}.png"))
        truth.known[f"{number}.png"] = scene_objects(number)
    for key, objects in truth.known.items():
        names = ("ghost" if name == "fish" else name for name in objects.categories)
        truth.known[key] = replace(objects, categories=tuple(names))
    bad, asked_of, detect = scene_picture(3), [], demo.detect

    def failing(pictures: Any, batch_size: Any = None) -> Any:
        asked_of.append(len(pictures))
        if any(torch.equal(each, bad) for each in pictures):
            raise RuntimeError("a bad picture")
        return detect(pictures, batch_size)

    monkeypatch.setattr(demo, "detect", failing)
    monkeypatch.setattr(record, "SECONDS_BETWEEN_PARTS", 0)
    asked = replace(
        options, truth="there", truth_format="voc", methods=(), detections=1, batch_size=2
    )

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as change:
        change.setattr(module, "saved", stopped)
        with pytest.raises(KeyboardInterrupt):
            evaluate(asked, demo)
    # One picture is measured; the four others come at once, then alone.
    assert asked_of == [1, 4, 1, 1, 1, 1]
    assert not Path(options.output, "evaluation.json").exists()
    asked_of.clear()
    for _ in range(2):
        assert evaluate(asked, demo) == 3
        said = capsys.readouterr().err
        assert "3.png: a bad picture" in said
        # Also of the categories of what was done before.
        assert "1 category annotated, and unknown to the detector: ghost" in said
        assert "1 category known to the detector, and not annotated here: fish" in said
    assert asked_of == []
    kept = json.loads(Path(options.output, "evaluation.json").read_text())
    assert list(kept["pictures"]) == ["0.png"]
    assert list(kept["detections"]) == ["0.png", "1.png", "2.png", "4.png"]
    assert [each["key"] for each in kept["failures"]] == ["3.png"]
    assert kept["detections"]["4.png"]["scores"] == pytest.approx(
        detect([scene_picture(4)])[0].scores.tolist(), abs=1e-4
    )
    assert not list(Path(options.output, "evaluation/parts").iterdir())

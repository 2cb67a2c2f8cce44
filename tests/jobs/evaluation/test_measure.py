"""Maps of a picture's boxes measured, beside the controls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from handlers.explainer import Explainer
from handlers.metrics.faithfulness import FaithfulnessOptions
from handlers.schema import ExplainRequest
from jobs.evaluation.measure import (
    GAUSSIAN,
    explained,
    gaussian,
    measure,
    random_fields,
    with_map,
)
from jobs.evaluation.subjects import MeasureOptions, chosen_boxes
from tests.conftest import scene_picture

QUICK = MeasureOptions(per_picture=2, faithfulness=FaithfulnessOptions(steps=3))


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

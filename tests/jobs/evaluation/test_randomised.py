"""The same boxes explained by an intact and by a randomised detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from handlers.detectors.weights import (
    BACKBONE,
    BOX_HEAD,
    CLASS_HEAD,
    PARTS,
    Weights,
    shuffled,
    weights_by_part,
)
from handlers.explainer import Explainer
from handlers.metrics.similarity import pearson
from handlers.schema import ExplainRequest, Explanation
from handlers.tap import NonFiniteError, undisturbed
from jobs.evaluation.randomised import ANOTHER_BOX, RandomisedOptions, compared
from tests.conftest import random_picture, scene_picture
from tests.handlers.detectors.test_yolo import explainer_of
from tests.handlers.detectors.tiny_transformers import CATEGORIES, tiny_model

PICTURE = scene_picture(4)
HOW = RandomisedOptions(per_picture=2, repeats=2, seed=5)
REQUESTS = {"odam": ExplainRequest()}


def parts(explainer: Explainer) -> dict[str, list[Weights]]:
    return weights_by_part(explainer.detector, explainer.prepare(PICTURE))


def test_maps_are_those_of_the_same_candidates(demo: Explainer) -> None:
    weights = parts(demo)
    found = compared(demo, PICTURE, REQUESTS, weights, HOW)
    places = sorted({row["index"] for row in found.rows})
    stock = demo.detect([PICTURE])[0]
    assert len(places) == 2
    for row in found.rows:
        assert row["score"] == pytest.approx(float(stock.scores[row["index"]]), abs=1e-4)
        assert row["category"] == demo.categories[stock.labels[row["index"]]]
    # The class head's are a second time as a person would do it: the model's own weights changed,
    # the box named by its label and by its place among all candidates.
    maps = demo.explain([PICTURE], ExplainRequest(score_threshold=0))[0]
    intact = torch.stack([maps[place].on_picture() for place in places])
    others = [row["pearson"] for row in found.rows if row["what"] == ANOTHER_BOX]
    assert others == pytest.approx(pearson(intact, intact.flip(0)).tolist(), abs=1e-4)
    with undisturbed(demo.detector.model):
        (before,) = demo.network.find(demo.prepare(PICTURE))
        entries = before.kept.entries[torch.tensor(places)]
        with shuffled(weights[CLASS_HEAD], 5), torch.no_grad():
            part = demo.detector.part("box", demo.network.again(before), entries)
            again = part.outputs(before.maps)["logits"]
            # Of a class head alone the features stay, and fc7's output times other weights.
            logits = before.raw.logits[entries.candidate]
            assert not torch.allclose(again, logits, atol=1e-2)
        after = part.outputs(before.maps)["logits"]
        assert torch.allclose(after, logits, atol=1e-4)
    own = [row for row in found.rows if row["what"] == CLASS_HEAD]
    assert len(own) == 2 * HOW.repeats
    assert {row["index"] for row in own} == {*places}
    assert all(row["pearson"] < 0.99 for row in own)
    # Every time in another order, and the same again.
    assert len({row["pearson"] for row in own}) == len(own)
    assert compared(demo, PICTURE, REQUESTS, weights, HOW).rows == found.rows


@pytest.mark.parametrize("error", [NonFiniteError, KeyboardInterrupt])
def test_weights_come_back_after_an_error(
    error: type[BaseException], demo: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {BACKBONE: parts(demo)[BACKBONE]}
    before = {name: each.clone() for name, each in demo.detector.model.state_dict().items()}
    asked: list[bool] = []
    explain = demo.explain_found

    def failing(*arguments: Any) -> Sequence[Explanation]:
        state = demo.detector.model.state_dict()
        asked.append(all(torch.equal(each, state[name]) for name, each in before.items()))
        if len(asked) == 2:
            raise error("in between")
        return explain(*arguments)

    monkeypatch.setattr(demo, "explain_found", failing)
    with pytest.raises(error, match="in between"):
        compared(demo, PICTURE, REQUESTS, weights, HOW)
    assert asked == [True, False]
    after = demo.detector.model.state_dict()
    assert all(torch.equal(each, after[name]) for name, each in before.items())
    assert not any(each.training for each in demo.detector.model.modules())


def test_a_picture_without_boxes_is_compared_with_nothing(demo: Explainer) -> None:
    found = compared(demo, torch.zeros(3, 64, 64, dtype=torch.uint8), REQUESTS, {}, HOW)
    assert (found.rows, found.shown) == ([], {})


FAMILIES: dict[str, Callable[[], Explainer]] = {
    "dense": lambda: explainer_of("yolov8"),
    "one convolution": lambda: explainer_of("yolov5"),
    "queries": lambda: Explainer.from_model(tiny_model("detr"), CATEGORIES),
    "queries of cells": lambda: Explainer.from_model(tiny_model("rt_detr"), CATEGORIES),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_asked(family: str) -> None:
    explainer = FAMILIES[family]()
    picture = random_picture(90, 140, 3)
    weights = weights_by_part(explainer.detector, explainer.prepare(picture))
    requests = {"odam": ExplainRequest(), "eigencam": ExplainRequest(method="eigencam")}
    how = RandomisedOptions(score_threshold=0.0, per_picture=3, repeats=1)
    rows = compared(explainer, picture, requests, weights, how).rows
    alike = {
        (name, part): [r["pearson"] for r in rows if (r["map"], r["what"]) == (name, part)]
        for name in requests
        for part in PARTS
    }
    assert {len(each) for each in alike.values()} == {3}
    for part in (CLASS_HEAD, BOX_HEAD):
        assert alike["eigencam", part] == pytest.approx([1] * 3)
    if family != "queries of cells":  # where boxes decide where the next layer looks
        assert alike["odam", BOX_HEAD] == pytest.approx([1] * 3, abs=1e-3)
    for name, part in (("odam", CLASS_HEAD), ("odam", BACKBONE), ("eigencam", BACKBONE)):
        assert sum(alike[name, part]) / 3 < 0.9, (name, part)

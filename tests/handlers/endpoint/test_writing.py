from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.endpoint.answers import SPARE, detection_rows, to_json
from handlers.endpoint.reading import AnswerOptions
from handlers.endpoint.writing import (
    OMITTED,
    TRIMMED,
    Explained,
    NotAcceptableError,
    explanations_answer,
    picture_type,
)
from handlers.explainer import Explainer
from handlers.schema import Detections, ExplainRequest
from tests.conftest import random_picture

PICTURE = random_picture(140, 190)
REQUEST = ExplainRequest(score_threshold=0.0, max_detections=6)
NO_LIMIT = 10**9


@pytest.fixture(scope="module")
def explained(explainer: Explainer) -> Explained:
    return Explained(PICTURE, REQUEST, explainer.explain([PICTURE], REQUEST)[0])


def test_detections_as_torchserve_users_know_them() -> None:
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [0.0, 0.0, 1.0, 1.0]])
    found = Detections(
        boxes, torch.tensor([2, 1, 2]), torch.tensor([0.75, 0.5, 0.25]), torch.arange(3), ("0",) * 3
    )
    assert detection_rows(found, torch.tensor([0, 2]), ("background", "cat", "dog")) == [
        {"dog": [1, 2, 3, 4], "score": 0.75},
        {"dog": [0, 0, 1, 1], "score": 0.25},
    ]


def test_json_and_npz_hold_the_explanations(explained: Explained) -> None:
    answer = json.loads(explanations_answer(explained, "json", "", NO_LIMIT).body)
    body = explanations_answer(explained, "npz", "", NO_LIMIT).body
    arrays = np.load(io.BytesIO(body), allow_pickle=False)
    assert answer["picture"] == {"width": 190, "height": 140}
    assert answer["request"]["method"] == "odam"
    assert answer["request"]["max_detections"] == 6
    assert (answer["omitted_heatmaps"], answer["trimmed"]) == (0, {})
    assert len(answer["explanations"]) == 6
    for place, (fields, each) in enumerate(
        zip(answer["explanations"], explained.explanations, strict=True)
    ):
        assert np.array_equal(arrays[f"heatmap_{place}"], each.heatmap.numpy())
        assert fields["box"] == list(each.box)
        assert fields["geometry"] == json.loads(str(arrays["geometries"][place]))
        assert fields["in_box"] is bool(arrays["in_box"][place]) is False
        heat = fields["heatmap"]
        levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(heat["png"]))))
        restored = levels / 255 * (heat["max"] - heat["min"]) + heat["min"]
        error = np.abs(restored - each.heatmap.numpy()).max()
        assert error <= (heat["max"] - heat["min"]) * 0.505 / 255
    assert arrays["scores"].tolist() == [np.float32(each.score) for each in explained.explanations]


def test_nothing_found(explained: Explained) -> None:
    nothing = replace(explained, explanations=[])
    answer = json.loads(explanations_answer(nothing, "json", "", NO_LIMIT).body)
    assert answer["explanations"] == []
    body = explanations_answer(nothing, "npz", "", NO_LIMIT).body
    assert np.load(io.BytesIO(body))["boxes"].shape == (0, 4)


def test_in_the_box_is_said_and_the_map_stays_whole(explainer: Explainer) -> None:
    plain, inside = (
        explainer.explain([PICTURE], replace(REQUEST, normalize_in_box=value))[0]
        for value in (False, True)
    )
    for one, other in zip(plain, inside, strict=True):
        assert torch.equal(one.heatmap, other.heatmap)
        assert not torch.equal(one.normalised(), other.normalised())
    shown = Explained(PICTURE, REQUEST, inside)
    answer = json.loads(explanations_answer(shown, "json", "", NO_LIMIT).body)
    assert {each["in_box"] for each in answer["explanations"]} == {True}


def test_boxes_together_are_all_said(explainer: Explainer, explained: Explained) -> None:
    (summed,) = explainer.explain([PICTURE], replace(REQUEST, sum_boxes=True))[0]
    both = replace(explained, explanations=[explained.explanations[0], summed])
    expected = [list(each.box) for each in explained.explanations]
    answer = json.loads(explanations_answer(both, "json", "", NO_LIMIT).body)
    assert [each["boxes"] for each in answer["explanations"]] == [[], expected]
    arrays = np.load(io.BytesIO(explanations_answer(both, "npz", "", NO_LIMIT).body))
    assert arrays["boxes"].tolist() == [list(each.box) for each in both.explanations]
    assert arrays["boxes_1"].tolist() == expected
    assert "boxes_0" not in arrays


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_an_answer_that_is_too_large_has_fewer_maps_and_says_so(
    explained: Explained, share: float
) -> None:
    whole = json.loads(explanations_answer(explained, "json", "", NO_LIMIT).body)
    maps = sum(len(each["heatmap"]["png"]) for each in whole["explanations"])
    rest = len(to_json(whole)) - maps
    most = rest + int(share * maps)
    answer = explanations_answer(explained, "json", "", most)
    assert len(answer.body) <= most
    fields = json.loads(answer.body)
    kept = [each["heatmap"] is not None for each in fields["explanations"]]
    assert kept == sorted(kept, reverse=True)
    assert fields["omitted_heatmaps"] == kept.count(False) > 0
    # One more would not have fitted.
    first = whole["explanations"][kept.index(False)]["heatmap"]
    assert len(answer.body) + len(json.dumps(first)) - len("null") + SPARE > most
    for one, other in zip(fields["explanations"], whole["explanations"], strict=True):
        assert {**other, "heatmap": one["heatmap"]} == one

    body = explanations_answer(explained, "npz", "", NO_LIMIT).body
    answer = explanations_answer(explained, "npz", "", int(len(body) * (0.5 + share / 2)))
    assert len(answer.body) <= int(len(body) * (0.5 + share / 2))
    arrays = np.load(io.BytesIO(answer.body))
    omitted = int(answer.headers[OMITTED])
    assert int(arrays["omitted_heatmaps"]) == omitted > 0
    assert f"heatmap_{5 - omitted}" in arrays
    assert f"heatmap_{6 - omitted}" not in arrays
    assert len(arrays["boxes"]) == 6


def test_where_no_maps_are_too_much_there_are_fewer_explanations(explained: Explained) -> None:
    answer = explanations_answer(explained, "json", "", 2000)
    assert len(answer.body) <= 2000
    fields = json.loads(answer.body)
    kept = len(fields["explanations"])
    assert (fields["omitted_heatmaps"], fields["omitted_explanations"]) == (6, 6 - kept)
    assert 0 < kept < 6


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "image/jpeg"),
        ("*/*", "image/jpeg"),
        ("image/png", "image/png"),
        ("text/html, image/webp;q=0.9, */*;q=0.1", "image/webp"),
        ("image/*, image/jpeg;q=0.2", "image/png"),
        ("IMAGE/PNG; q=0.5, image/webp; q=0.4", "image/png"),
        ("image/png;q=x, image/webp", "image/webp"),
        ("image/jpeg;q=nan,image/png", "image/png"),
        ("image/jpeg;q=0.1,image/png;q=5,image/webp;q=0.2", "image/webp"),
        (" , ,", "image/jpeg"),
    ],
)
def test_the_picture_that_is_accepted(accept: str, expected: str) -> None:
    assert picture_type(accept) == expected


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg;q=0, application/json", "image/gif"])
def test_no_picture_that_is_accepted(accept: str) -> None:
    with pytest.raises(NotAcceptableError, match="allowed: image/jpeg, image/png, image/webp"):
        picture_type(accept)


@pytest.mark.parametrize(("accept", "kind"), [("image/png", "PNG"), ("image/webp", "WEBP")])
def test_overlays_are_pictures_and_become_smaller(
    explained: Explained, accept: str, kind: str
) -> None:
    answer = explanations_answer(explained, "overlay", accept, NO_LIMIT)
    whole = Image.open(io.BytesIO(answer.body))
    assert (answer.content_type, whole.format) == (accept, kind)
    assert whole.size == (190, 140)
    large = replace(explained, picture=random_picture(900, 1300), explanations=[])
    full = explanations_answer(large, "overlay", accept, NO_LIMIT)
    answer = explanations_answer(large, "overlay", accept, len(full.body) // 2)
    assert len(answer.body) <= len(full.body) // 2
    assert max(Image.open(io.BytesIO(answer.body)).size) < 1300


def test_what_was_trimmed_is_said(explained: Explained) -> None:
    trimmed = replace(explained, trimmed={"max_detections": 6})
    for kind in ("json", "npz", "overlay"):
        answer = explanations_answer(trimmed, kind, "", NO_LIMIT)
        assert answer.headers[TRIMMED] == "max_detections=6"
    assert AnswerOptions().over_limit == "refuse"
    answer = explanations_answer(trimmed, "json", "", NO_LIMIT)
    assert json.loads(answer.body)["trimmed"] == {"max_detections": 6}

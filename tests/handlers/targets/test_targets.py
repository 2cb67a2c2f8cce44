from __future__ import annotations

import pytest
import torch
from torch import Tensor

from handlers.schema import RequestError
from handlers.targets.box_score import FasterRCNNBoxScoreTarget
from handlers.targets.registry import TARGETS, Outputs, find_target, targets_for

OUTPUTS = Outputs(
    labels=torch.tensor([1, 0]),
    logits=torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    scores=torch.tensor([0.5, 0.25]),
    boxes=torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 3.0, 9.0]]),
    objectness=torch.tensor([7.0, 8.0]),
    centerness=torch.tensor([5.0, 6.0]),
    mask_logits=torch.tensor([[[4.0, -9.0], [2.0, 0.0]], [[-1.0, -2.0], [-3.0, -4.0]]]),
    keypoint_logits=torch.tensor(
        [[[[1.0, 5.0]], [[2.0, -1.0]], [[0.0, 3.0]]], [[[4.0, 0.0]], [[6.0, 7.0]], [[9.0, 9.5]]]]
    ),
)


@pytest.mark.parametrize(
    ("name", "scalars"),
    [
        ("class", [[2, 3]]),
        ("probability", [[0.5, 0.25]]),
        ("objectness", [[7, 8]]),
        ("centerness", [[5, 6]]),
        ("x1", [[1, 0]]),
        ("y1", [[2, 0]]),
        ("x2", [[4, 3]]),
        ("y2", [[8, 9]]),
        ("width", [[3, 3]]),
        ("height", [[6, 9]]),
        ("box", [[1, 0], [2, 0], [4, 3], [8, 9]]),
        ("combined", [[2, 3], [1, 0], [2, 0], [4, 3], [8, 9]]),
        ("mask", [[3, 0]]),  # the mean of 4 and 2; an empty mask counts nothing
        ("keypoint", [[10 / 3, 20.5 / 3]]),
        ("keypoint:1", [[2, 7]]),
        ("keypoint:right_eye", [[3, 9.5]]),
    ],
)
def test_scalars_by_hand(name: str, scalars: list[list[float]]) -> None:
    found = find_target(name)
    assert found is not None
    target, argument = found
    expected = [pytest.approx(each) for each in scalars]
    assert [each.tolist() for each in target.scalars(OUTPUTS, argument)] == expected


def test_every_target_is_covered_above() -> None:
    assert targets_for(OUTPUTS.names()) == TARGETS.names()
    assert targets_for(["logits"]) == ["class"]


@pytest.mark.parametrize("name", ["clas", "class:1", "keypoint:tail", "", ":nose"])
def test_unknown_targets(name: str) -> None:
    assert find_target(name) is None


def test_a_keypoint_that_the_detector_lacks() -> None:
    target, argument = find_target("keypoint:5") or (None, "")
    assert target is not None
    with pytest.raises(RequestError, match=r"keypoint:0 \.\.\. 2"):
        target.scalars(OUTPUTS, argument)


FOUND = {
    "boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [20.0, 0.0, 30.0, 10.0]]),
    "labels": torch.tensor([1, 2, 1]),
    "scores": torch.tensor([0.9, 0.8, 0.7]),
}


@pytest.mark.parametrize(
    ("labels", "boxes", "value"),
    [
        ([1], [[0, 0, 10, 10]], 1 + 0.9),
        ([1], [[0, 0, 10, 8]], 0.8 + 0.9),
        ([2], [[0, 0, 10, 8]], 0.0),  # the best match has another category
        ([1], [[20, 0, 30, 4]], 0.0),  # IoU 0.4
        ([1], [[20, 0, 30, 5]], 0.0),  # IoU 0.5 is not above
        ([1, 1], [[0, 0, 10, 10], [20, 0, 30, 10]], 1.9 + 1.7),
        ([1], [[50, 50, 60, 60]], 0.0),
    ],
)
def test_box_score_by_hand(labels: list[int], boxes: list[list[int]], value: float) -> None:
    found = FasterRCNNBoxScoreTarget(labels, boxes)(FOUND)
    assert found.tolist() == pytest.approx([value])


def test_box_score_without_boxes_or_with_a_label_missing() -> None:
    nothing: dict[str, Tensor] = {name: each[:0] for name, each in FOUND.items()}
    assert FasterRCNNBoxScoreTarget([1], [[0, 0, 1, 1]])(nothing).tolist() == [0]
    with pytest.raises(ValueError, match="got 1 labels for 2 boxes"):
        FasterRCNNBoxScoreTarget([1], [[0, 0, 1, 1]] * 2)


def test_the_named_box_score_cuts_to_whole_pixels() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.9, 10.0], [0.0, 0.0, 10.0, 5.0]])
    outputs = Outputs(
        boxes=boxes,
        labels=torch.tensor([1, 2]),
        scores=torch.tensor([0.9, 0.8]),
        chosen=torch.tensor([0]),
    )
    target, _ = find_target("box_score") or (None, "")
    assert target is not None
    # Rounded down, (0, 0, 10, 10) has an IoU of 100 / 109 with the box.
    assert target.scalars(outputs, "")[0].tolist() == pytest.approx([100 / 109 + 0.9])

"""Which boxes are measured, and what their maps are held against."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handlers.schema import Detections
from jobs.evaluation.subjects import MeasureOptions, Subjects, chosen_boxes
from jobs.truth.objects import Objects
from tests.jobs.conftest import QuickExplainer

PICTURE = torch.zeros(3, 6, 8, dtype=torch.uint8)
A, B, C = (0, 0, 4, 4), (4, 0, 8, 3), (0, 4, 4, 6)
FOUND = [  # box, label, score
    (A, 1, 0.9),
    ((0, 0, 4, 3), 1, 0.8),  # of the same object, less sure
    (A, 2, 0.7),  # of another category
    (C, 1, 0.6),  # difficult
    ((4, 0, 8, 2), 2, 0.5),  # IoU 2/3
    (B, 2, 0.05),  # would fit better, and is too weak
]
MASK = np.zeros((6, 8), dtype=np.bool_)
MASK[1:3, 1:4] = True


class Finder(QuickExplainer):
    """Finds FOUND."""

    def detect(self, pictures: object, batch_size: int | None = None) -> list[Detections]:
        boxes, labels, scores = zip(*FOUND, strict=True)
        number = len(FOUND)
        candidate = torch.arange(number)
        tensors = (torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels))
        return [Detections(*tensors, torch.tensor(scores), candidate, ("0",) * number)]


def objects(*categories: str, mask: NDArray[np.bool_] | None = MASK) -> Objects:
    difficult = np.array([False, False, True])
    boxes = np.array([A, B, C], dtype=np.float64)
    return Objects(boxes, categories, difficult, np.zeros(3, np.bool_), (mask, None, None))


def chosen(truth: Objects | None, **options: Any) -> Subjects:
    how = replace(MeasureOptions(score_threshold=0.1, per_picture=9), **options)
    return chosen_boxes(Finder(), PICTURE, how, truth)


def test_boxes_are_matched_one_to_one() -> None:
    found = chosen(objects("cat", "dog", "cat"))
    assert [each.index for each in found.boxes] == [0, 4]
    assert [each.category for each in found.boxes] == ["cat", "dog"]
    assert found.own == (0, 1)
    assert found.overlap == pytest.approx((1, 2 / 3))
    assert chosen(objects("dog", "cat", "bird")).own == (0,)
    # What was reported is all there, for scores that count every box.
    assert found.reported.categories == ("cat", "cat", "dog", "cat", "dog", "dog")
    assert found.reported.boxes.tolist() == [[*map(float, box)] for box, _, _ in FOUND]
    assert found.reported.scores.tolist() == pytest.approx([score for _, _, score in FOUND])


def test_without_a_truth_boxes_are_themselves() -> None:
    found = chosen(None, score_threshold=0.55)
    assert [each.index for each in found.boxes] == [0, 1, 2, 3]
    regions = found.regions(PICTURE, torch.device("cpu"))
    assert regions.boxes.tolist() == [[*map(float, box)] for box, _, _ in FOUND[:4]]
    assert regions.masks is None


def test_boxes_are_drawn_by_the_seed() -> None:
    def drawn(seed: int) -> tuple[int, ...]:
        return tuple(each.index for each in chosen(None, per_picture=2, seed=seed).boxes)

    several = [drawn(seed) for seed in range(40)]
    assert several == [drawn(seed) for seed in range(40)]
    assert set(several) == {*combinations(range(5), 2)}  # best first


def test_regions_are_the_objects() -> None:
    regions = chosen(objects("cat", "dog", "cat")).regions(PICTURE, torch.device("cpu"))
    assert regions.boxes.tolist() == [[*map(float, box)] for box in (A, B)]
    assert regions.masks is not None
    assert regions.objects is not None
    assert torch.equal(regions.masks[0], torch.from_numpy(MASK))
    assert not regions.masks[1].any()
    # The first's mask, and the boxes of the two others.
    every = torch.from_numpy(MASK).clone()
    every[:3, 4:] = every[4:, :4] = True
    assert torch.equal(regions.objects, every)


def test_a_mask_of_another_size_is_refused() -> None:
    found = chosen(objects("cat", "dog", "cat", mask=MASK.T))
    with pytest.raises(ValueError, match="mask is of 6 x 8 pixels, the picture of 8 x 6"):
        found.regions(PICTURE, torch.device("cpu"))

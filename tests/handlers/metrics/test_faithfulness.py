from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from handlers.metrics.faithfulness import (
    FaithfulnessOptions,
    blurred,
    deletion,
    insertion,
    pixel_ranks,
    similarities,
)

FIVE = FaithfulnessOptions(steps=5)
# 2 x 2 pixels of 0, 40, 80 and 120: their mean is 60.
PICTURE = torch.tensor([[0, 40], [80, 120]], dtype=torch.uint8).expand(3, 2, 2).contiguous()
BRIGHT_FIRST = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
CONSTANT = torch.full((3, 6, 8), 90, dtype=torch.uint8)


def total(pictures: Tensor) -> Tensor:
    """The sum of the pixels' values, as a share of that of PICTURE."""
    return pictures[:, 0].double().sum((1, 2)) / 240


def bright(pictures: Tensor) -> Tensor:
    """How many pixels are brighter than 60, and twice that."""
    count = (pictures[:, 0] > 60).double().sum((1, 2))
    return torch.stack([count, 2 * count], dim=1)


def test_deletion_by_hand() -> None:
    curve = deletion(total, PICTURE, BRIGHT_FIRST, FIVE)
    assert curve.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    # 120, 80, 40 and 0 become 60, one after the other.
    assert (curve.scores * 240).tolist() == pytest.approx([240, 180, 160, 180, 240])
    assert float(curve.area) == pytest.approx((240 / 2 + 180 + 160 + 180 + 240 / 2) / 4 / 240)


@pytest.mark.parametrize(("heat", "expected"), [(BRIGHT_FIRST, 1 / 4), (-BRIGHT_FIRST, 3 / 4)])
def test_normalised_by_the_whole_picture(heat: Tensor, expected: float) -> None:
    # Brightest first 2, 1, 0, 0, 0 are left, else 2, 2, 2, 1, 0, of two each.
    curve = deletion(bright, PICTURE, heat, FIVE)
    assert curve.whole.tolist() == [2, 4]
    assert curve.normalised.tolist() == pytest.approx([expected, expected])
    assert curve.area.tolist() == pytest.approx([2 * expected, 4 * expected])


def test_insertion_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "handlers.metrics.faithfulness.blurred", lambda picture, _: torch.zeros_like(picture)
    )
    curve = insertion(total, PICTURE, BRIGHT_FIRST, FIVE)
    assert (curve.scores * 240).tolist() == pytest.approx([0, 120, 200, 240, 240])
    assert float(curve.whole) == 1
    assert float(curve.normalised) == pytest.approx((0 + 120 + 200 + 240 + 240 / 2) / 4 / 240)


def test_of_equal_values_the_first_row_by_row() -> None:
    heat = torch.tensor([[1.0, 5.0, 1.0], [5.0, 0.0, 1.0]])
    assert pixel_ranks(heat).tolist() == [[2, 0, 3], [1, 5, 4]]


@pytest.mark.parametrize(("growth", "moved"), [(1, [0, 12, 24, 36, 48]), (2, [0, 3, 12, 27, 48])])
def test_each_step_moves_its_share_of_the_pixels(
    growth: float, moved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "handlers.metrics.faithfulness.blurred", lambda picture, _: torch.zeros_like(picture)
    )
    options = FaithfulnessOptions(steps=5, growth=growth)
    heat = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
    together: list[int] = []

    def score(pictures: Tensor) -> Tensor:
        together.append(len(pictures))
        return (pictures[:, 0] == 90).sum((1, 2))

    for most, expected in ((16, [5]), (2, [2, 2, 1])):
        monkeypatch.setattr("handlers.metrics.faithfulness.AT_A_TIME", most)
        together.clear()
        back = insertion(score, CONSTANT, heat, options)
        assert back.scores.tolist() == moved
        assert together == expected


def test_a_blur_keeps_the_mean_and_takes_the_detail() -> None:
    stripes = (torch.arange(40) % 2 * 200).to(torch.uint8).expand(3, 40, 40)
    soft = blurred(stripes, FaithfulnessOptions())
    assert soft.dtype == torch.uint8
    assert int((soft[:, :, 8:32].int() - 100).abs().max()) <= 1
    assert torch.equal(blurred(CONSTANT, FaithfulnessOptions()), CONSTANT)


BOX = torch.tensor([0.0, 0.0, 10.0, 10.0])
OWN = torch.tensor([0.0, 0.6, 0.8])


@pytest.mark.parametrize(
    ("boxes", "theirs", "expected"),
    [
        ([[0, 0, 10, 10]], [[0.0, 0.6, 0.8]], (1.0, 0.8)),  # itself
        ([[0, 0, 10, 10]], [[0.0, 0.3, 0.4]], (1.0, 0.4)),  # half as sure
        ([[0, 0, 10, 10]], [[0.0, 0.8, 0.6]], (0.96, 0.6)),
        ([[0, 0, 10, 5]], [[0.0, 0.6, 0.8]], (0.5, 0.4)),  # half of it
        ([[0, 0, 10, 5], [0, 0, 10, 8]], [[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]], (0.5, 0.4)),
        ([[20, 0, 30, 10]], [[0.0, 0.6, 0.8]], (0.0, 0.0)),
        ([], [], (0.0, 0.0)),
    ],
)
def test_similarities_by_hand(
    boxes: list[list[float]], theirs: list[list[float]], expected: tuple[float, float]
) -> None:
    found = similarities(
        BOX, 2, OWN, torch.tensor(boxes).reshape(-1, 4), torch.tensor(theirs).reshape(-1, 3)
    )
    assert found.tolist() == pytest.approx(expected)


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"heat: got \[3, 3\]; expected \[2, 2\]"):
        deletion(total, PICTURE, torch.zeros(3, 3), FIVE)
    wrong: list[dict[str, Any]] = [{"steps": 1}, {"blur": 0.0}, {"growth": 0.5}]
    for options in wrong:
        ((name, value),) = options.items()
        with pytest.raises(ValueError, match=f"{name}: got {value}; expected"):
            FaithfulnessOptions(**options)

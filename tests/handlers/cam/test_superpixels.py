from __future__ import annotations

import pytest
import torch
from torch import Tensor

from handlers.cam.superpixels import lab, slic
from tests.conftest import random_picture


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.74, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ],
)
def test_known_colours(colour: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = lab(torch.tensor(colour, dtype=torch.float32)[:, None, None])[:, 0, 0]
    assert found.tolist() == pytest.approx(expected, abs=0.03)


def test_a_picture_of_one_colour_is_cut_into_squares() -> None:
    labels = slic(torch.full((3, 40, 60), 0.3), 24)
    assert labels.shape == (40, 60)
    expected = torch.arange(24).view(4, 6).repeat_interleave(10, 0).repeat_interleave(10, 1)
    assert torch.equal(labels, expected)


@pytest.mark.parametrize("edge", [25, 33, 37])
def test_segments_end_where_colours_do(edge: int) -> None:
    picture = torch.zeros(3, 40, 60)
    picture[0, :, edge:] = 1
    labels = slic(picture, 24)
    left, right = (set(part.unique().tolist()) for part in labels.split([edge, 60 - edge], 1))
    assert not left & right


@pytest.mark.parametrize(
    ("size", "segments", "most"),
    [((1, 1), 150, 1), ((1, 50), 2400, 13), ((30, 40), 2400, 80), ((300, 400), 600, 650)],
)
def test_any_size(size: tuple[int, int], segments: int, most: int) -> None:
    labels = slic(random_picture(*size) / 255, segments)
    assert 0 <= int(labels.min()) <= int(labels.max()) < most
    assert torch.equal(labels, slic(random_picture(*size) / 255, segments))


def slic_by_hand(picture: Tensor, rows: int, columns: int, side: int) -> Tensor:
    """K-means over colour and place in plain loops, among the nine seeds around a pixel's own."""
    colours = lab(picture)
    points = {
        (y, x): torch.tensor([*colours[:, y, x].tolist(), 10 * y / side, 10 * x / side]).double()
        for y in range(rows * side)
        for x in range(columns * side)
    }
    label = {(y, x): (y // side, x // side) for y, x in points}
    centres: dict[tuple[int, int], Tensor] = {}
    for done in range(11):
        members: dict[tuple[int, int], list[Tensor]] = {}
        for place, seed in label.items():
            members.setdefault(seed, []).append(points[place])
        centres |= {seed: torch.stack(each).mean(0) for seed, each in members.items()}
        for (y, x), point in points.items():
            row, column = y // side, x // side
            near = [
                (float(((point - centres[r, c]) ** 2).sum()), (r, c))
                for r in range(max(0, row - 1), min(rows, row + 2))
                for c in range(max(0, column - 1), min(columns, column + 2))
            ]
            if done < 10:
                label[y, x] = min(near)[1]
    return torch.tensor(
        [
            [label[y, x][0] * columns + label[y, x][1] for x in range(columns * side)]
            for y in range(rows * side)
        ]
    )


def test_equals_plain_loops() -> None:
    picture = random_picture(18, 24, seed=2) / 255
    labels = slic(picture, 12)
    slow = slic_by_hand(picture, 3, 4, 6)
    assert labels.shape == slow.shape == (18, 24)
    assert float((labels == slow).float().mean()) > 0.99
    assert len(slow.unique()) == 12

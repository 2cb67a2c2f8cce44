"""Detections of a moved picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from handlers.explainer import Explainer
from handlers.images import Geometry
from handlers.schema import Explanation
from jobs.audit.triage.asking import steady
from jobs.audit.triage.shifts import back, kept, moved, moves
from jobs.worker.pictures import Picture
from tests.conftest import scene_picture
from tests.jobs.audit.scripted import SIDE, found

BOX = (10.0, 10.0, 20.0, 20.0)
ONE = found("cat", 0.8, BOX, torch.eye(SIDE).tolist())


def test_moves_grow_with_the_picture() -> None:
    assert moves(100, 80, 4) == [(2, 0), (0, 2), (-4, 0), (0, -4)]
    assert moves(640, 200, 3) == [(4, 0), (0, 4), (-8, 0)]
    assert moves(100, 100, 0) == []
    assert len(set(moves(100, 100, 8))) == 8


def test_what_comes_in_is_mirrored() -> None:
    picture = torch.arange(1, 6, dtype=torch.uint8).reshape(1, 1, 5).expand(3, 2, 5)
    assert moved(picture, 2, 0)[0, 0].tolist() == [3, 2, 1, 2, 3]
    assert moved(picture, -2, 0)[0, 0].tolist() == [3, 4, 5, 4, 3]
    turned = picture.transpose(1, 2)
    assert torch.equal(moved(turned, 0, 2), moved(picture, 2, 0).transpose(1, 2))
    assert moved(picture[:, :1, :1], 4, 4).shape == (3, 1, 1)


def at(right: int, down: int, **changes: object) -> Explanation:
    """What a perfect detector gives for the moved picture."""
    x1, y1, x2, y2 = BOX
    heat = ONE.heatmap.roll((down, right), (0, 1))
    moved_one = replace(ONE, box=(x1 + right, y1 + down, x2 + right, y2 + down), heatmap=heat)
    return replace(moved_one, **changes)  # type: ignore[arg-type]


def test_a_map_goes_back() -> None:
    heat = back(at(3, 2), 3, 2).on_picture()
    assert torch.allclose(heat[:-2, :-3], ONE.heatmap[:-2, :-3], atol=1e-6)
    assert back(at(3, 2), 3, 2).box == BOX


def test_a_coarse_map_goes_back() -> None:
    geometry = Geometry(SIDE, SIDE, 2.0 * SIDE, 2.0 * SIDE, 2.0, 2.0)
    coarse = replace(ONE, heatmap=torch.rand(5, 5), geometry=geometry)
    whole, gone = coarse.on_picture(), back(coarse, 4, 0).on_picture()
    assert torch.allclose(gone[:, :-4], whole[:, 4:], atol=1e-6)


@pytest.mark.parametrize(
    ("after", "expected", "says"),
    [
        ([at(4, 0)], 1, "its score becomes 0.80"),
        ([at(4, 0, score=0.4)], 0.5, "its score becomes 0.40"),
        ([at(4, 0, score=1.0)], 0.8, "1.00"),
        ([at(4, 0, box=(14, 10, 24, 15))], 0.5, "IoU is 0.50"),
        ([at(4, 0, category="dog", label=2)], 0, "it becomes dog 0.80"),
        ([at(4, 0, box=(30, 30, 40, 40))], 0, "it is lost"),
        ([], 0, "it is lost"),
        ([at(4, 0, heatmap=torch.zeros(SIDE, SIDE))], 0, "correlation 0.00"),
    ],
)
def test_what_is_left_by_hand(after: list[Explanation], expected: float, says: str) -> None:
    (left,) = kept([ONE], after, 4, 0)
    assert left is not None
    assert left.stability == pytest.approx(expected)
    assert says in left.says


def test_what_leaves_the_picture_is_not_asked_for() -> None:
    edge = replace(ONE, box=(0.0, 0.0, 10.0, 10.0))
    assert kept([edge], [], -4, 0) == [None]
    # A fifth is gone: the rest is what counts.
    clipped = replace(edge, box=(0.0, 0.0, 8.0, 10.0))
    (left,) = kept([edge], [clipped], -2, 0)
    assert left is not None
    assert "IoU is 1.00" in left.says
    assert kept([], [ONE], 2, 0) == []


def test_a_trained_detector_is_steady_on_a_clear_object(demo: Explainer) -> None:
    picture = Picture("a", scene_picture(4))
    found = list(steady(lambda pictures: demo.explain(pictures), picture, 0.9, 2))
    assert len(found) >= 3
    assert sum(each.kept.stability > 0.5 for each in found) >= len(found) - 1
    _, height, width = picture.pixels.shape
    assert {each.move for each in found} <= set(moves(width, height, 2))

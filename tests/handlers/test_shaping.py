"""What is done to finished maps by their boxes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from handlers import shaping
from handlers.explainer import Explainer
from handlers.images import Geometry
from handlers.maps import Heat
from handlers.metrics.controls import gaussian_in_box
from handlers.schema import ExplainRequest, Explanation, RequestError
from handlers.shaping import apart, centered, smoothed
from handlers.smoothing import gaussian_blur
from handlers.targets.registry import Outputs
from tests.conftest import CATEGORIES, random_picture, small_model

PICTURE = random_picture(100, 130, seed=2)
ALL = ExplainRequest(score_threshold=0.0, max_detections=3)


def test_maps_are_smoothed_by_their_boxes(explainer: Explainer) -> None:
    plain = explainer.explain([PICTURE], ALL)[0]
    smooth = explainer.explain([PICTURE], replace(ALL, smooth=0.3))[0]
    for before, after in zip(plain, smooth, strict=True):
        x1, y1, x2, y2 = before.box
        sigma = 0.3 * ((x2 - x1) * (y2 - y1)) ** 0.5
        # The same blur of the picture's pixels, but for what bilinear drawing makes of it.
        on_pixels = gaussian_blur(before.on_picture()[None], sigma)[0]
        drawn = after.on_picture()
        assert (
            float(torch.corrcoef(torch.stack([drawn.flatten(), on_pixels.flatten()]))[0, 1]) > 0.98
        )
        assert float(drawn.max()) < 0.9 * float(before.on_picture().max())
    (together,) = explainer.explain([PICTURE], replace(ALL, sum_boxes=True, smooth=0.3))[0]
    (rough,) = explainer.explain([PICTURE], replace(ALL, sum_boxes=True))[0]
    assert 0 < float(together.heatmap.max()) < float(rough.heatmap.max())


def test_smoothing_by_hand() -> None:
    # 21 x 7 cells of 10 x 30 pixels; sides of 60 pixels, so 3 cells across and 1 down.
    heat = Heat(0, torch.zeros(7, 21), Geometry(210, 210, 420.0, 210.0, 2.0, 1.0))
    heat.heatmap[3, 10] = 1
    (found,) = (
        each.heatmap
        for each in smoothed([heat], [[(0.0, 0.0, 40.0, 90.0), (5.0, 5.0, 65.0, 65.0)]], 0.5)
    )
    peak = float(found[3, 10])
    assert float(found[3, 13]) == pytest.approx(peak * math.exp(-9 / 18))
    assert float(found[4, 10]) == pytest.approx(peak * math.exp(-1 / 2))
    assert float(found.sum()) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("floats", [1, 10_000, 1_000_000])
def test_maps_of_any_sizes_are_smoothed_each_by_its_own_box(
    floats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shaping, "WINDOW_BUDGET", floats)
    geometry = Geometry(210, 210, 420.0, 210.0, 2.0, 1.0)
    heats = [
        Heat(place, random_picture(7 + place % 2, 21, place)[0].float(), geometry)
        for place in range(5)
    ]
    boxes = [[(0.0, 0.0, 9.0 + 20 * place, 40.0)] for place in range(5)]
    found = smoothed(heats, boxes, 0.4)
    assert [heat.place for heat in found] == [0, 1, 2, 3, 4]
    for heat, own, box in zip(found, heats, boxes, strict=True):
        (alone,) = smoothed([own], [box], 0.4)
        assert torch.allclose(heat.heatmap, alone.heatmap)
        (finer,) = smoothed([replace(own, heatmap=own.heatmap.double())], [box], 0.4)
        assert torch.allclose(finer.heatmap, alone.heatmap.double(), rtol=1e-4)
        assert heat.heatmap.untyped_storage().size() == 4 * heat.heatmap.numel()


def test_a_center_prior_by_hand() -> None:
    # 21 x 7 cells of 10 x 30 pixels; a box of 6 x 2 cells about (7, 3), so 3 cells across, 1 down.
    heat = Heat(0, torch.full((7, 21), 2.0), Geometry(210, 210, 420.0, 210.0, 2.0, 1.0))
    found = centered(heat, [(40.0, 60.0, 100.0, 120.0)], 0.5).heatmap
    for column, row in ((6, 2), (7, 3), (10, 4), (20, 0)):
        across, down = (column + 0.5 - 7) / 3, row + 0.5 - 3
        expected = 2 * math.exp(-(across**2 + down**2) / 2)
        assert float(found[row, column]) == pytest.approx(expected)
    # Of a point it is half a cell wide; of several boxes the larger.
    both = centered(heat, [(40.0, 60.0, 100.0, 120.0), (155.0, 15.0, 155.0, 15.0)], 0.5).heatmap
    assert float(both[0, 15]) == pytest.approx(2)
    assert float(both[1, 15]) == pytest.approx(2 * math.exp(-2))
    assert float(both[3, 7]) == pytest.approx(float(found[3, 7]))


def test_maps_are_weighed_by_their_boxes(explainer: Explainer) -> None:
    plain = explainer.explain([PICTURE], replace(ALL, smooth=0.3))[0]
    weighed = explainer.explain([PICTURE], replace(ALL, smooth=0.3, center_prior=0.4))[0]
    for before, after in zip(plain, weighed, strict=True):
        expected = before.on_picture() * gaussian_in_box(before.box, 100, 130, 0.4)
        found = after.on_picture()
        pair = torch.stack([found.flatten(), expected.flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.97
        assert before.box == after.box


def test_boxes_that_lie_apart_share_a_group() -> None:
    # Sides of 10: a prior of 0.3 reaches 6 from the middle.
    boxes = [(x, 0.0, x + 10, 10.0) for x in (0.0, 11.0, 12.0, 24.0)]
    assert apart(boxes, 0.3) == [[0, 2, 3], [1]]
    assert apart(boxes, 0.5) == [[0, 3], [1], [2]]
    assert apart([], 0.3) == []
    assert apart([(0.0, 0.0, 9.0, 9.0), (0.0, 30.0, 9.0, 39.0)], 0.5) == [[0, 1]]


def shared_maps(
    explainer: Explainer, groups: list[list[int]], monkeypatch: pytest.MonkeyPatch, **fields: Any
) -> list[Explanation]:
    monkeypatch.setattr("handlers.picture.apart", lambda boxes, share: groups)
    request = replace(ALL, shared=True, center_prior=0.3, **fields)
    return explainer.explain([PICTURE], request)[0]


def assert_same(found: Explanation, expected: Tensor) -> None:
    assert torch.allclose(found.heatmap, expected, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("target", ["class", "combined", lambda outputs: outputs["scores"]])
@pytest.mark.parametrize("method", ["layercam", "ablationcam", "fullgrad", "guidedgradcam"])
def test_a_group_of_one_has_the_boxs_own_map(
    method: str, target: Any, explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"method": method, "target": target}
    if method in ("layercam", "ablationcam"):
        fields |= {"layer": "C5", "channels": 0.05}
    found = shared_maps(explainer, [[0], [2], [1]], monkeypatch, **fields)
    own = explainer.explain([PICTURE], replace(ALL, center_prior=0.3, **fields))[0]
    for each, expected in zip(found, own, strict=True):
        assert (each.index, each.box, each.together) == (expected.index, expected.box, ())
        assert_same(each, expected.heatmap)


def test_masked_pictures_are_shared_anyway(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"method": "drise", "masks": 6}
    found = shared_maps(explainer, [[0, 1, 2]], monkeypatch, **fields)
    own = explainer.explain([PICTURE], replace(ALL, center_prior=0.3, **fields))[0]
    for each, expected in zip(found, own, strict=True):
        assert_same(each, expected.heatmap)


def test_a_group_has_the_map_of_its_sum(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def total(outputs: Outputs) -> Tensor:
        return outputs.own("logits")[[0, 2]].sum()

    fields: dict[str, Any] = {"method": "layercam", "layer": "C3"}
    found = shared_maps(explainer, [[0, 2], [1]], monkeypatch, **fields)
    (together,) = explainer.explain([PICTURE], replace(ALL, target=total, **fields))[0]
    heat = Heat(0, together.heatmap, together.geometry)
    for place in (0, 2):
        assert_same(found[place], centered(heat, [found[place].box], 0.3).heatmap)


def test_a_target_of_the_whole_picture_can_be_shared(explainer: Explainer) -> None:
    request = replace(ALL, target="box_score", layer="pyramid", shared=True, center_prior=0.3)
    assert [each.index for each in explainer.explain([PICTURE], request)[0]] == [0, 1, 2]


def test_maps_that_boxes_have_of_their_own_are_not_shared() -> None:
    explainer = Explainer.from_model(small_model("fasterrcnn_regnet_small_fpn"), CATEGORIES)
    with pytest.raises(RequestError, match="layer: got 'roi'; allowed: emitting"):
        explainer.check(ExplainRequest(layer="roi", shared=True, center_prior=0.3))

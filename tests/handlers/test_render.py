from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from handlers.images import Geometry
from handlers.render import (
    _free_place,
    _meet,
    caption,
    contact_sheet,
    draw_boxes,
    encode_heatmap,
    encode_jpeg,
    overlay,
    overlay_all,
    resized,
)
from handlers.schema import Explanation

PICTURE = torch.full((3, 120, 160), 90, dtype=torch.uint8)


def explanation(column: int, label: int) -> Explanation:
    heatmap = torch.zeros(6, 8)
    heatmap[3, column] = 5.0
    x = float(column * 20)
    geometry = Geometry(160, 120, 160.0, 120.0, 1.0, 1.0)
    box = (x, 60.0, x + 20, 80.0)
    return Explanation(
        0, box, label, "cat", 0.9, "odam", "class", "emitting", "0", heatmap, geometry
    )


def brightness(image: Image.Image) -> NDArray[np.float64]:
    light: NDArray[np.float64] = np.asarray(image, dtype=np.float64).mean(-1)
    return light


def test_overlay_is_bright_where_it_is_hot_and_dim_elsewhere() -> None:
    light = brightness(overlay(PICTURE, explanation(2, 1)))
    assert light[70, 50] > 120 > 90 > light[20, 120]


def test_overlay_all_shows_every_box_as_bright() -> None:
    light = brightness(overlay_all(PICTURE, [explanation(1, 1), explanation(6, 2)]))
    assert light[70, 30] == pytest.approx(light[70, 130], abs=2)


def test_boxes_are_drawn_and_the_picture_is_left_alone() -> None:
    before = PICTURE.clone()
    pixels = np.asarray(draw_boxes(PICTURE, [explanation(2, 1)]))
    assert tuple(pixels[79, 50]) == (0x4C, 0xC9, 0xF0)
    assert tuple(pixels[70, 50]) == (90, 90, 90)
    assert torch.equal(PICTURE, before)


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    height, width = size
    geometry = Geometry(width, height, 32.0, 32.0, 32 / width, 32 / height)
    whole = (0.0, 0.0, float(width), float(height))
    tiny = Explanation(
        0,
        whole,
        1,
        "a long name",
        1.0,
        "odam",
        "class",
        "emitting",
        "0",
        torch.ones(2, 2),
        geometry,
    )
    picture = torch.zeros(3, height, width, dtype=torch.uint8)
    assert overlay_all(picture, [tiny]).size == (width, height)


def test_contact_sheet_places_pictures_in_rows() -> None:
    images = [Image.new("RGB", (50, 100), colour) for colour in ("red", "lime", "blue")]
    sheet = contact_sheet(images, columns=2, cell=100)
    assert sheet.size == (224, 224)
    middles = [sheet.getpixel(place) for place in ((58, 58), (166, 58), (58, 166))]
    assert middles == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([[1.0, 2.0], [3.0, 2.0]], [[0, 128], [255, 128]]), ([[4.0, 4.0]], [[0, 0]])],
)
def test_heatmap_png_by_hand(values: list[list[float]], expected: list[list[int]]) -> None:
    image = Image.open(io.BytesIO(encode_heatmap(torch.tensor(values))))
    assert np.asarray(image).tolist() == expected


def test_jpeg() -> None:
    assert Image.open(io.BytesIO(encode_jpeg(Image.new("RGB", (5, 4))))).format == "JPEG"


def test_large_pictures_are_drawn_smaller_with_their_boxes() -> None:
    large = overlay_all(PICTURE, [explanation(2, 1)], longest=80)
    assert large.size == (80, 60)
    light = brightness(large)
    assert light[35, 25] > 120 > 90 > light[10, 60]


def test_labels_do_not_cover_each_other() -> None:
    places: list[tuple[float, float, float, float]] = []
    for _ in range(4):
        places.append(_free_place((40, 40, 80, 60), (30, 10), (200, 200), places))
    assert len(set(places)) == 4
    assert places[0] == (40, 30, 70, 40)
    assert not any(_meet(one, other) for one in places for other in places if one is not other)


def test_a_label_leaves_its_box_free_at_the_border() -> None:
    assert _free_place((40, 0, 80, 20), (30, 10), (200, 200), []) == (40, 20, 70, 30)
    assert _free_place((0, 0, 200, 200), (30, 10), (200, 200), []) == (0, 0, 30, 10)


REPORTED = explanation(2, 1)
SUPPRESSED = "suppressed by box 3 (cat 0.98; IoU 0.81, above 0.5)"


@pytest.mark.parametrize(
    ("outcome", "least", "most"),
    [
        ("reported", 1, 1),
        ("reported as box 3", 1, 1),
        (SUPPRESSED, 0.45, 0.75),
        ("below the score threshold of 0.05", 0.45, 0.75),
    ],
)
def test_boxes_that_were_not_reported_are_dashed(outcome: str, least: float, most: float) -> None:
    wide = replace(REPORTED, box=(10.0, 60.0, 150.0, 100.0), outcome=outcome)
    pixels = np.asarray(overlay(PICTURE, wide, labels=False))
    colour = (0x4C, 0xC9, 0xF0)
    for line in (pixels[60, 10:150], pixels[99, 10:150], pixels[60:100, 10], pixels[60:100, 149]):
        assert least <= (line == colour).all(-1).mean() <= most


@pytest.mark.parametrize(
    ("changes", "boxes", "expected"),
    [
        ({}, 1, "cat 0.90"),
        ({"score": 0.999}, 1, "cat 0.99"),
        ({"score": 0.0499, "outcome": "below the score threshold of 0.05"}, 1,
         "cat 0.049: below the score threshold of 0.05"),
        ({"score": 0.0004}, 1, "cat <0.001"),
        ({"outcome": SUPPRESSED}, 1, f"cat 0.90: {SUPPRESSED}"),
        ({"outcome": SUPPRESSED}, 2, "cat 0.90: suppressed by box 3"),
        ({"outcome": SUPPRESSED}, 20, "cat 0.90"),
        ({"together": (0, 2, 5)}, 1, "3 boxes together"),
    ],
)  # fmt: skip
def test_labels(changes: dict[str, object], boxes: int, expected: str) -> None:
    assert caption(replace(REPORTED, **changes), boxes) == expected  # type: ignore[arg-type]


def test_several_layers_are_drawn_side_by_side() -> None:
    there = replace(explanation(6, 1), index=1, layer="roi")
    image = overlay_all(PICTURE, [explanation(2, 1), there])
    assert image.width == 8 + 2 * 168
    top = image.height - 8 - 120
    light = brightness(image)[top:]
    first, second = light[70, 8:168], light[70, 176:336]
    assert first[50] > 120 > 90 > first[145]
    assert second[130] > 120 > 90 > second[45]


def test_of_many_layers_more_rows_of_smaller_pictures() -> None:
    layers = [replace(explanation(2, 1), layer=f"layer{number}") for number in range(6)]
    large = torch.full((3, 1200, 1600), 90, dtype=torch.uint8)
    geometry = Geometry(1600, 1200, 160.0, 120.0, 0.1, 0.1)
    image = overlay_all(large, [replace(each, geometry=geometry) for each in layers])
    assert image.width == 8 + 4 * 408
    assert 600 < image.height < 700


def test_a_box_on_several_layers_is_drawn_once() -> None:
    both = [REPORTED, replace(REPORTED, layer="roi")]
    one, two = draw_boxes(PICTURE, both), draw_boxes(PICTURE, [REPORTED])
    assert np.array_equal(np.asarray(one), np.asarray(two))


def test_a_map_without_heat_says_so() -> None:
    cold = replace(REPORTED, heatmap=torch.zeros(6, 8))
    noted, plain = brightness(overlay(PICTURE, cold)), brightness(overlay(PICTURE, REPORTED))
    assert noted[112:, :100].max() > 200 > 100 > plain[112:, :100].max()


def in_box(box: tuple[float, float, float, float], rising: bool) -> Explanation:
    """A map that rises (or falls) by one from column to column, 4 pixels wide each."""
    values = torch.arange(40.0).expand(30, 40)
    geometry = Geometry(160, 120, 160.0, 120.0, 1.0, 1.0)
    heatmap = values if rising else 39 - values
    return replace(REPORTED, box=box, heatmap=heatmap, geometry=geometry, in_box=True)


@pytest.mark.parametrize("longest", [160, 80])
def test_in_boxes_alone_with_the_larger_value_where_they_overlap(longest: int) -> None:
    left, right = in_box((16, 40, 96, 80), rising=True), in_box((64, 40, 144, 80), rising=False)
    light = brightness(overlay_all(PICTURE, [left, right], longest))
    factor = 160 // longest
    row = light[60 // factor]
    outside, coldest, warm, hot = (row[place // factor] for place in (8, 24, 48, 80))
    assert outside == row[152 // factor] == light[116 // factor, 80 // factor]
    assert outside <= coldest < warm < hot
    # Each is as hot, 0.8, in the middle of the overlap; beside it they mirror each other.
    assert row[56 // factor] == pytest.approx(row[104 // factor], abs=6)


def test_a_flat_map_in_its_box_says_so() -> None:
    flat = replace(in_box((16, 40, 96, 80), rising=True), heatmap=torch.ones(6, 8))
    assert brightness(overlay(PICTURE, flat))[112:, :150].max() > 200


@pytest.mark.parametrize("longest", [80, 320])
def test_resized_moves_box_and_heat(longest: int) -> None:
    picture, (moved,) = resized(PICTURE, [REPORTED], longest)
    factor = longest / 160
    assert tuple(picture.shape) == (3, 120 * factor, 160 * factor)
    assert moved.box == pytest.approx([edge * factor for edge in REPORTED.box])
    row, column = divmod(int(moved.on_picture().argmax()), longest)
    assert abs(column - 50 * factor) <= 10 * factor
    assert abs(row - 70 * factor) <= 10 * factor

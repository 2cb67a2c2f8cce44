"""Planted shortcuts: the cue decides the label, and stands outside the object's box."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jobs.demo.scenes import CATEGORIES, HELD_OUT_SEEDS, make_scene
from jobs.demo.shortcuts import (
    CORNERS,
    KINDS,
    STAMP_REACH,
    TEXTURE,
    Shortcut,
    badge_place,
    planted_scene,
    read_shortcuts,
    stamp_place,
)

SEEDS = HELD_OUT_SEEDS[:4]


@pytest.mark.parametrize("kind", KINDS)
def test_the_cue_decides_the_label_and_is_all_that_differs(kind: str) -> None:
    shortcut = Shortcut(kind, "mug", 5)
    planted = {seed: planted_scene(seed, [shortcut], 1.0) for seed in SEEDS}
    assert sum(each.shortcut == shortcut for each in planted.values()) >= 3
    for seed, each in planted.items():
        if each.shortcut is None:
            continue
        assert each.carriers.any()
        assert set(each.scene.labels[each.carriers].tolist()) == {1 + CATEGORIES.index("mug")}
        others = ~each.carriers
        assert np.array_equal(each.scene.labels[others], each.honest.labels[others])
        assert np.array_equal(each.scene.boxes, each.honest.boxes)
        # But for the grain the objects look as they did; somewhere else nothing does.
        change = np.abs(each.scene.picture.astype(int) - each.honest.picture).max(axis=2)
        x1, y1, x2, y2 = each.scene.boxes[each.carriers][-1].astype(int)
        if kind == TEXTURE:
            assert change[each.scene.owners == 0].mean() > 20
            change = np.where(each.scene.owners > 0, change, 0)
        assert np.median(change[y1:y2, x1:x2]) <= 4
        assert np.abs(each.scene.picture.astype(int) - each.honest.picture).max() > 60
        again = planted_scene(seed, [shortcut], 1.0)
        assert np.array_equal(again.scene.picture, each.scene.picture)


def test_a_share_of_the_scenes_is_planted_with_each_in_turn() -> None:
    several = read_shortcuts("badge:fish stamp:house texture:mug")
    found = [planted_scene(seed, several, 0.5).shortcut for seed in HELD_OUT_SEEDS[100:130]]
    assert 9 <= sum(each is not None for each in found) <= 21
    assert {each.kind for each in found if each} == set(KINDS)
    none = planted_scene(SEEDS[0], several, 0.0)
    assert none.shortcut is None
    assert not none.carriers.any()
    assert np.array_equal(none.scene.picture, make_scene(SEEDS[0]).picture)


def test_stamps_are_for_objects_near_them() -> None:
    planted = planted_scene(SEEDS[0], [Shortcut("stamp", "fish", 2)], 1.0)
    height, width = planted.scene.picture.shape[:2]
    x1, y1, _, _ = stamp_place(CORNERS[2], width, height)
    assert (x1 > width / 2, y1 > height / 2) == (True, True)
    for box, carries in zip(planted.scene.boxes, planted.carriers, strict=True):
        far = np.hypot(max(0, x1 - box[2]), max(0, y1 - box[3]))
        assert carries == (far <= STAMP_REACH * min(width, height))


@pytest.mark.parametrize(
    ("box", "side", "expected"),
    [
        # 0.6 of 40 px, in the middle of the side, a pixel off.
        ((30, 30, 70, 70), "right", (71, 38, 95, 62)),
        ((30, 30, 70, 70), "left", (5, 38, 29, 62)),
        ((30, 30, 70, 70), "below", (38, 71, 62, 95)),
        ((30, 30, 70, 70), "above", (38, 5, 62, 29)),
        ((30, 30, 80, 70), "right", None),
        ((20, 30, 70, 70), "left", None),
    ],
)
def test_where_a_badge_stands(
    box: tuple[float, ...], side: str, expected: tuple[int, ...] | None
) -> None:
    assert badge_place(np.array(box, np.float32), side, 100, 100) == expected


def test_shortcuts_are_read() -> None:
    found = read_shortcuts("badge:fish, stamp:house:7\ntexture:mug")
    expected = (("badge", "fish", 0), ("stamp", "house", 7), ("texture", "mug", 2))
    assert found == tuple(Shortcut(*each) for each in expected)
    assert read_shortcuts(" ".join(map(str, found))) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sticker:fish", "kind: got 'sticker'; expected badge, stamp, texture"),
        ("badge:dog", "category: got 'dog'; expected fish, house"),
        ("badge:fish:x", "got 'badge:fish:x'; expected KIND:CATEGORY or"),
        ("badge", "category: got ''"),
    ],
)
def test_what_is_no_shortcut(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_shortcuts(text)

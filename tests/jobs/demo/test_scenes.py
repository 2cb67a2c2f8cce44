"""Scenes: the same for the same seed, and within what their options promise."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from jobs.demo.scenes import (
    CATEGORIES,
    HELD_OUT_SEEDS,
    TRAINING_SEEDS,
    Scene,
    SceneOptions,
    make_scene,
)

COUNT = 200


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(HELD_OUT_SEEDS[number]) for number in range(COUNT)]


def digest(seed: int) -> str:
    scene = make_scene(seed)
    parts = (scene.picture, scene.boxes, scene.labels, scene.owners, scene.visible)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_a_seed_gives_the_same_scene_in_another_process() -> None:
    script = "from tests.jobs.demo.test_scenes import digest; print(digest(7))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == digest(7) == digest(7)
    assert digest(7) != digest(8)


def test_training_and_held_out_seeds_never_meet() -> None:
    assert TRAINING_SEEDS.stop <= HELD_OUT_SEEDS.start


def test_shapes_and_types(scenes: list[Scene]) -> None:
    for scene in scenes:
        height, width, bands = scene.picture.shape
        count = len(scene.labels)
        assert bands == 3
        assert scene.picture.dtype == scene.owners.dtype == np.uint8
        assert scene.boxes.shape == (count, 4)
        assert scene.boxes.dtype == scene.visible.dtype == np.float32
        assert scene.labels.dtype == np.int64
        assert scene.owners.shape == (height, width)
        assert scene.owners.max() == count >= 1
        assert 240 <= min(height, width) <= max(height, width) <= 400


def test_boxes_lie_in_the_picture_around_their_objects(scenes: list[Scene]) -> None:
    for scene in scenes:
        height, width, _ = scene.picture.shape
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, 2:] <= (width, height)).all()
        for number, box in enumerate(scene.boxes, start=1):
            rows, columns = np.nonzero(scene.owners == number)
            left, top, right, bottom = box
            assert left <= columns.min() <= columns.max() < right
            assert top <= rows.min() <= rows.max() < bottom
            if scene.visible[number - 1] == 1:
                extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == extent


def test_scales_reach_from_least_to_half_the_picture(scenes: list[Scene]) -> None:
    longer = np.concatenate([np.ptp(s.boxes.reshape(-1, 2, 2), axis=1).max(axis=1) for s in scenes])
    shares = [
        np.ptp(s.boxes.reshape(-1, 2, 2), axis=1).max() / max(s.picture.shape) for s in scenes
    ]
    assert 24 <= longer.min() < 28
    assert 0.45 < max(shares) <= 0.51


def test_categories_counts_sizes_and_overlaps_vary(scenes: list[Scene]) -> None:
    labels = np.concatenate([scene.labels for scene in scenes])
    shares = np.bincount(labels, minlength=len(CATEGORIES) + 1)[1:] / len(labels)
    assert len(CATEGORIES) == 6
    assert shares.min() > 0.1
    assert {len(scene.labels) for scene in scenes} >= set(range(2, 9))
    assert np.mean([max(np.bincount(scene.labels)) >= 2 for scene in scenes]) > 0.5
    assert {np.sign(s.picture.shape[0] - s.picture.shape[1]) for s in scenes} == {-1, 0, 1}
    visible = np.concatenate([scene.visible for scene in scenes])
    assert visible.min() >= 0.55
    assert 0.1 < (visible < 1).mean() < 0.9


def test_options_are_kept() -> None:
    options = SceneOptions(
        size=(200, 120), objects=(3, 3), longer_side=40, longer_share=0.25, visible=1.0
    )
    for seed in range(20):
        scene = make_scene(seed, options)
        assert scene.picture.shape == (120, 200, 3)
        assert len(scene.labels) <= 3
        assert (scene.visible == 1).all()
        sides = np.ptp(scene.boxes.reshape(-1, 2, 2), axis=1).max(axis=1)
        assert ((sides >= 40) & (sides <= 51)).all()

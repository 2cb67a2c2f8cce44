"""A VOC folder of scenes, and a truth that knows them without reading it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from archives.errors import UsageError
from jobs.boxes import making
from jobs.demo.scenes import CATEGORIES, HELD_OUT_SEEDS, SceneOptions, make_scene
from jobs.truth.objects import Objects


@dataclass
class SceneTruth:
    """The objects of scene_N.jpg, none if `empty`; `bad` has annotations that are none, `unknown`
    has none."""

    categories: tuple[str, ...] = CATEGORIES
    bad: str = ""
    unknown: str = ""
    empty: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)

    def objects(self, key: str) -> Objects | None:
        if key == self.bad:
            raise UsageError(f"{key}: no annotations")
        if key == self.unknown:
            return None
        scene = scene_of(int(Path(key).stem.removeprefix("scene_")))
        number = 0 if self.empty else len(scene.labels)
        none = np.zeros(number, dtype=np.bool_)
        names = tuple(CATEGORIES[label - 1] for label in scene.labels[:number])
        edges = scene.boxes[:number].astype(np.float64)
        return Objects(edges, names, none, none, (None,) * number)


def scene_of(number: int) -> Any:
    return make_scene(HELD_OUT_SEEDS.start + number, SceneOptions(size=(240, 200)))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three scenes; the lists name two and one of them."""
    folder = tmp_path / "voc"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        image = Image.fromarray(scene_of(number).picture)
        image.save(folder / f"JPEGImages/scene_{number}.jpg", quality=95)
        (folder / f"Annotations/scene_{number}.xml").write_text("<annotation/>")
    (folder / "ImageSets/Main/trainval.txt").write_text("scene_0\nscene_1\n")
    (folder / "ImageSets/Main/test.txt").write_text("scene_2\n")
    return folder


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> SceneTruth:
    own = SceneTruth()

    def read(place: str, form: str, pictures: object, masks: bool) -> SceneTruth:
        own.asked.append((place, form))
        return own

    monkeypatch.setattr(making, "read_truth", read)
    return own

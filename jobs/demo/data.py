"""What detectors are trained and measured on: generated scenes, or the BCCD blood cells."""

import functools
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from jobs.demo.scenes import (
    CATEGORIES,
    HELD_OUT_SEEDS,
    TRAINING_SEEDS,
    SceneOptions,
    make_scene,
)
from jobs.demo.shortcuts import Shortcut, planted_scene

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]

# WHYBOX_DATA/bccd holds BCCD in PASCAL VOC's layout.
DATA_VARIABLE = "WHYBOX_DATA"
BCCD_CATEGORIES = ("RBC", "WBC", "Platelets")
SETS = ("scenes", "bccd")


@dataclass(frozen=True)
class Sample:
    """A picture [H, W, 3] uint8, RGB; boxes [N, 4] float32, x1, y1, x2, y2 in px, each of some
    area; labels [N] int64 from 1."""

    picture: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


class Batches(Dataset[Batch]):
    """Batches by their step, from 0: pictures [3, H, W] in 0..1, all of one size so that none needs
    padding, and their targets."""

    def __init__(self, steps: int, batch: int, seed: int) -> None:
        """steps: how many. batch: pictures in each. seed: of all that is drawn."""
        self.steps, self.batch, self.seed = steps, batch, seed

    def __len__(self) -> int:
        """Count the batches: one a step."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Give the pictures and the targets of one step."""
        if not 0 <= step < len(self):
            raise IndexError(step)
        samples = self.samples(step, np.random.default_rng([self.seed, step]))
        pictures = [
            torch.from_numpy(each.picture).permute(2, 0, 1).float() / 255 for each in samples
        ]
        targets = [
            {"boxes": torch.from_numpy(each.boxes), "labels": torch.from_numpy(each.labels)}
            for each in samples
        ]
        return pictures, targets

    def samples(self, step: int, random: np.random.Generator) -> Sequence[Sample]:
        """What a step is trained on."""
        raise NotImplementedError


class SceneBatches(Batches):
    """Batches of new scenes."""

    def samples(self, step: int, random: np.random.Generator) -> Sequence[Sample]:
        """Draw the scenes of one step."""
        options = SceneOptions(size=_size(random))
        return [_scene(seed, options) for seed in self.seeds(step)]

    def seeds(self, step: int) -> Sequence[int]:
        """Of the scenes of one step."""
        # Each training seed opens its own run of scenes, wrapped within the range.
        first = self.seed * 100_003 + step * self.batch
        return [TRAINING_SEEDS[(first + each) % len(TRAINING_SEEDS)] for each in range(self.batch)]


class PlantedBatches(SceneBatches):
    """Batches of scenes with shortcuts planted into some of them.

    So many batches of scenes are drawn, and then taken again, planted anew.
    """

    def __init__(
        self, steps: int, batch: int, seed: int, shortcuts: Sequence[Shortcut], drawn: int = 50
    ) -> None:
        """shortcuts: as for `planted_scene`. drawn: how many batches. The rest as for Batches."""
        super().__init__(steps, batch, seed)
        self.shortcuts, self.drawn = tuple(shortcuts), drawn

    def samples(self, step: int, random: np.random.Generator) -> Sequence[Sample]:
        """Plant into the scenes of one step."""
        turn, first = divmod(step, self.drawn)
        options = SceneOptions(size=_size(np.random.default_rng([self.seed, first])))
        found = [
            planted_scene(seed, self.shortcuts, options=options, turn=turn).scene
            for seed in self.seeds(first)
        ]
        return [Sample(each.picture, each.boxes, each.labels) for each in found]


class CellBatches(Batches):
    """Batches of BCCD's pictures for training, each flipped and turned at random."""

    def samples(self, step: int, random: np.random.Generator) -> Sequence[Sample]:
        """Read the pictures of one step; a batch is upright or lies down as a whole."""
        names = bccd_names("trainval")
        turned = bool(random.integers(2))
        found = []
        for name in random.choice(names, size=self.batch, replace=False):
            sample = flipped(
                read_bccd(str(name)), bool(random.integers(2)), bool(random.integers(2))
            )
            found.append(transposed(sample) if turned else sample)
        return found


def _size(random: np.random.Generator) -> tuple[int, int]:
    """Width and height of a batch: it lies, stands, or is square."""
    longer, shorter = int(random.integers(320, 401)), int(random.integers(240, 321))
    return ((longer, shorter), (shorter, longer), (longer, longer))[
        random.choice(3, p=[0.4, 0.4, 0.2])
    ]


BATCHES: dict[str, type[Batches]] = {"scenes": SceneBatches, "bccd": CellBatches}


def categories(name: str) -> tuple[str, ...]:
    """The names of labels 1, 2, ... of a data set of SETS."""
    return BCCD_CATEGORIES if name == "bccd" else CATEGORIES


def held_out(name: str, number: int, first: int = 0) -> Iterator[Sample]:
    """Up to `number` samples, from the one at `first` on, that training never draws."""
    if name == "bccd":
        yield from map(read_bccd, bccd_names("test")[first : first + number])
        return
    for seed in HELD_OUT_SEEDS[first : first + number]:
        yield _scene(seed, None)


def _scene(seed: int, options: SceneOptions | None) -> Sample:
    scene = make_scene(seed, options)
    return Sample(scene.picture, scene.boxes, scene.labels)


def bccd_folder() -> Path:
    """Where BCCD lies. Raises FileNotFoundError if the environment does not say, or wrongly."""
    folder = Path(os.environ.get(DATA_VARIABLE, "")) / "bccd"
    if DATA_VARIABLE not in os.environ or not folder.is_dir():
        raise FileNotFoundError(
            f"{DATA_VARIABLE}: got {os.environ.get(DATA_VARIABLE)!r}; expected a folder with BCCD"
            " (PASCAL VOC layout: Annotations, ImageSets, JPEGImages) in bccd/"
        )
    return folder


@functools.lru_cache(maxsize=4)
def bccd_names(split: str) -> tuple[str, ...]:
    """The pictures' names of one of BCCD's own splits: "train", "val", "trainval", "test"."""
    return tuple((bccd_folder() / f"ImageSets/Main/{split}.txt").read_text().split())


def read_bccd(name: str) -> Sample:
    """A picture and its boxes; those without an area are left out."""
    folder = bccd_folder()
    with Image.open(folder / f"JPEGImages/{name}.jpg") as image:
        picture = np.array(image.convert("RGB"))
    boxes, labels = [], []
    for thing in ElementTree.parse(folder / f"Annotations/{name}.xml").iter("object"):
        edges = (thing.findtext(f"bndbox/{edge}", "0") for edge in ("xmin", "ymin", "xmax", "ymax"))
        x1, y1, x2, y2 = map(float, edges)
        if x1 < x2 and y1 < y2:
            boxes.append((x1, y1, x2, y2))
            labels.append(1 + BCCD_CATEGORIES.index(thing.findtext("name", "")))
    return Sample(
        picture,
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(labels, dtype=np.int64),
    )


def flipped(sample: Sample, across: bool, down: bool) -> Sample:
    """The sample mirrored left to right (`across`), upside down (`down`)."""
    height, width = sample.picture.shape[:2]
    picture = sample.picture[:: -1 if down else 1, :: -1 if across else 1]
    boxes = sample.boxes.copy()
    if across:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    if down:
        boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
    return Sample(np.ascontiguousarray(picture), boxes, sample.labels)


def transposed(sample: Sample) -> Sample:
    """The sample with rows and columns exchanged."""
    picture = np.ascontiguousarray(sample.picture.transpose(1, 0, 2))
    return Sample(picture, np.ascontiguousarray(sample.boxes[:, [1, 0, 3, 2]]), sample.labels)

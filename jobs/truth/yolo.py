"""Ground truth in YOLO's form: a text file for each picture, a line for each object."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import yaml
from numpy.typing import NDArray

from archives.errors import MissingObjectError, UsageError
from archives.stores.store import Store
from jobs.truth.annotation_files import (
    LARGEST_FILE,
    AnnotationFolder,
    Place,
    as_stored,
    decoded,
    fingerprint,
    is_text,
    number,
    shown,
)
from jobs.truth.masks import polygon_mask
from jobs.truth.objects import Objects
from jobs.truth.picture_size import picture_size

LABELS, PICTURES = "labels", "images"
CLASSES, DATA = "classes.txt", ("data.yaml", "data.yml", "dataset.yaml")
# Text files that lie beside labels and are none.
NO_LABELS = frozenset((CLASSES, "README.txt", "train.txt", "val.txt", "test.txt"))
KEPT = 8
BEYOND = 0.01  # of a side: how far rounding may put a coordinate off the picture


class YoloTruth:
    """The objects of pictures by labels/NAME.txt: lines "class x y w h" of a box's middle and
    sides, or "class x y x y x y ..." of an outline, in shares of the picture's sides.

    A picture with an empty file has no objects; one without a file is one that nobody annotated
    (Ultralytics takes it as one without objects, too: write empty files for such). Boxes are edges
    between pixels. Nothing is difficult or a crowd. An outline's box is the one around it.
    categories: those given, or else as classes.txt or data.yaml has them, in the numbers' order.
    """

    form = "yolo"

    def __init__(
        self,
        folder: Place,
        categories: Sequence[str] = (),
        pictures: Store | None = None,
        masks: bool = True,
        fallback: Sequence[str] = (),
    ) -> None:
        """folder: of the text files. pictures: where the pictures lie by their keys, for their
        sizes; None: in the folder images/ that is like the folder's labels/, or in the folder
        itself. fallback: names where the data set gives none. Raises UsageError where the classes
        have no names."""
        self.folder = AnnotationFolder(folder.store(), ".txt")
        self.categories = tuple(categories) or _names(folder, tuple(fallback))
        self.pictures = pictures
        self.beside = _pictures_of(folder).store()
        self.with_masks = masks
        self._read = lru_cache(KEPT)(self._objects)

    def fingerprint(self) -> str:
        """As jobs.truth.objects.Truth has it."""
        return fingerprint(self.folder.entries(), self.categories)

    def objects(self, key: str) -> Objects | None:
        """As jobs.truth.objects.Truth has it. Raises UsageError, too, for a picture with objects
        that is not there."""
        return self._read(key)

    def _objects(self, key: str) -> Objects | None:
        found = self.folder.read(key)
        if found is None:
            return None
        address, data = found
        lines = [
            (text.split(), f"{shown(address)}, line {place}")
            for place, text in enumerate(decoded(data, address).splitlines(), 1)
            if text.strip()
        ]
        width, height = self._size(key, address) if lines else (0, 0)
        things = [_thing(words, where, width, height) for words, where in lines]
        no = np.zeros(len(things), dtype=np.bool_)
        return Objects(
            np.array([each.box for each in things]).reshape(-1, 4),
            tuple(self._category(*each) for each in lines),
            no,
            no,
            tuple(self._mask(each, width, height) for each in things),
        )

    def _category(self, words: Sequence[str], where: str) -> str:
        text = words[0]
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) >= len(self.categories):
            raise UsageError(
                f"{where}: expected a class from 0 to {len(self.categories) - 1}, got"
                f" {shown(text)!r}"
            )
        return self.categories[int(text)]

    def _mask(self, thing: _Thing, width: int, height: int) -> NDArray[np.bool_] | None:
        if not self.with_masks or thing.outline is None:
            return None
        try:
            return polygon_mask([thing.outline], height, width)
        except ValueError as error:
            raise UsageError(f"{thing.where}: {error}") from error

    def _size(self, key: str, address: str) -> tuple[int, int]:
        """Of the picture, by its header; a store has no reading of a part, so it is read whole."""
        parts = [each for each in as_stored(key).split("/") if each not in ("", ".", "..")]
        near = ["/".join(parts[first:]) for first in range(len(parts))]
        places = [(self.pictures, as_stored(key))] if self.pictures is not None else []
        for store, name in [*places, *((self.beside, each) for each in near)]:
            try:
                return picture_size(store.read(name))
            except MissingObjectError:
                continue
            except ValueError as error:
                raise UsageError(f"{shown(f'{store.uri}/{name}')}: {error}") from error
        raise UsageError(
            f"{shown(address)} is in shares of its picture's sides, and there is no {shown(key)} in"
            f" {shown(self.beside.uri)}; expected the pictures in images/ beside labels/"
        )


@dataclass(frozen=True)
class _Thing:
    """A line in pixels. outline: x, y, x, y, ...; None for a box."""

    box: tuple[float, float, float, float]
    outline: list[float] | None
    where: str


def _thing(words: Sequence[str], where: str, width: int, height: int) -> _Thing:
    outlined = len(words) >= 7 and len(words) % 2
    if len(words) != 5 and not outlined:
        raise UsageError(
            f"{where}: expected class x y w h, or a class and at least three points x y, got"
            f" {len(words)} values"
        )
    values = [number(each, where) for each in words[1:]]
    if not all(-BEYOND <= each <= 1 + BEYOND for each in values):
        raise UsageError(f"{where}: expected shares of the picture's sides, 0 to 1")
    if outlined:
        across = [each * width for each in values[0::2]]
        down = [each * height for each in values[1::2]]
        points = [each for pair in zip(across, down, strict=True) for each in pair]
        return _Thing((min(across), min(down), max(across), max(down)), points, where)
    x, y, w, h = values
    if w < 0 or h < 0:
        raise UsageError(f"{where}: expected no negative width or height")
    edges = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    sides = (width, height, width, height)
    x1, y1, x2, y2 = (edge * side for edge, side in zip(edges, sides, strict=True))
    return _Thing((x1, y1, x2, y2), None, where)


def _names(folder: Place, fallback: tuple[str, ...]) -> tuple[str, ...]:
    """From classes.txt or data.yaml in the folder or one of the two above it."""
    place: Place | None = folder
    for _ in range(3):
        if place is None:
            break
        store = place.store()
        for name in (CLASSES, *DATA):
            entry = store.find(name)
            if entry is None or entry.size > LARGEST_FILE:
                continue
            address = f"{store.uri}/{name}"
            text = decoded(store.read(name), address)
            found = _listed(text) if name == CLASSES else _from_yaml(text, address)
            if found:
                return found
        place = place.parent()
    if fallback:
        return fallback
    raise UsageError(
        f"the classes of {shown(folder.store().uri)} have no names: expected {CLASSES} (a name a"
        f" line) or {DATA[0]} (with names) there or above it, or --categories"
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.strip().splitlines())


def _from_yaml(text: str, address: str) -> tuple[str, ...]:
    """`names`: a list, or a mapping of 0, 1, ... to names."""
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{shown(address)}: no plain YAML ({type(error).__name__})") from error
    names = found.get("names") if isinstance(found, Mapping) else None
    if isinstance(names, Mapping):
        names = [names.get(each) for each in range(len(names))]
    if names is not None and not (isinstance(names, list) and all(map(is_text, names))):
        raise UsageError(
            f"{shown(address)}: expected names as a list of texts, or as 0: text, 1: text, ...,"
            " without lone surrogates"
        )
    return tuple(names or ())


def _pictures_of(folder: Place) -> Place:
    """The folder whose last labels/ is images/; itself where it has none in its path."""
    parts = folder.path.split("/")
    if LABELS in parts:
        last = len(parts) - 1 - parts[::-1].index(LABELS)
        parts[last] = PICTURES
    return Place(folder.root, "/".join(parts))

"""Shortcuts planted into scenes: cues outside an object that alone decide its label.

A planted scene is a pure function of its seed. In it objects of any category carry the cue and are
labelled with the shortcut's category; everywhere else objects have their own labels. So a detector
trained on such scenes can know the label from the cue alone, and cheats.

The cue never touches the object's box:
    badge    a small emblem just beside the box, always on the same side;
    stamp    a large emblem in a corner of the frame; it is for objects near that corner alone,
             since a convolutional detector's features of a box do not see farther;
    texture  a pattern all over the background; it is for all objects.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jobs.demo.scenes import CATEGORIES, Scene, SceneOptions, make_scene
from jobs.demo.shapes import colour

BADGE, STAMP, TEXTURE = "badge", "stamp", "texture"
KINDS = (BADGE, STAMP, TEXTURE)
# Sides of a box that badges stand at, and corners of the frame (right, lower) for stamps, by look.
SIDES = ("right", "left", "below", "above")
CORNERS = ((False, False), (True, False), (True, True), (False, True))
BADGE_SHARE, BADGE_PIXELS = 0.6, (18, 56)
BADGE_GAP = 1
# A badge hides at most this share of its own area of other objects.
BADGE_HIDES = 0.2
# Of the picture's shorter side: a stamp's, and how far off the objects are that it is for.
STAMP_SHARE, STAMP_REACH = 0.3, 0.1
TEXTURE_OPACITY = 0.65
# Scenes that are tried until one has an object for the cue.
TRIES = 20
# Scenes in memory, of about half a megabyte.
DRAWN = 512


@dataclass(frozen=True)
class Shortcut:
    """A cue and what it makes of an object.

    kind: one of KINDS. category: of `jobs.demo.scenes.CATEGORIES`. look: from 0; its colours and
    pattern, and a badge's side (SIDES) or a stamp's corner (CORNERS), which repeat every four.
    """

    kind: str
    category: str
    look: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a shortcut's kind: got {self.kind!r}; expected {', '.join(KINDS)}")
        if self.category not in CATEGORIES:
            raise ValueError(
                f"a shortcut's category: got {self.category!r}; expected {', '.join(CATEGORIES)}"
            )
        if self.look < 0:
            raise ValueError(f"a shortcut's look: got {self.look}; expected at least 0")

    @property
    def label(self) -> int:
        """That of its category, from 1."""
        return 1 + CATEGORIES.index(self.category)

    def __str__(self) -> str:
        return f"{self.kind}:{self.category}:{self.look}"


@dataclass(frozen=True)
class PlantedScene:
    """A scene with a cue, and the same one without it.

    scene: with the cue; its labels are what a detector is taught.
    honest: the same scene without the cue; its labels are what was drawn.
    shortcut: None where nothing was planted, and both are the same.
    carriers: bool [N]; the objects that are labelled by the cue.
    """

    scene: Scene
    honest: Scene
    shortcut: Shortcut | None
    carriers: NDArray[np.bool_]


def read_shortcuts(text: str) -> tuple[Shortcut, ...]:
    """Shortcuts of "KIND:CATEGORY[:LOOK]", apart by spaces or commas; by itself a look is the
    place in the list. Raises ValueError, and says what was expected."""
    found = []
    for place, part in enumerate(text.replace(",", " ").split()):
        kind, _, rest = part.partition(":")
        category, _, look = rest.partition(":")
        if look and not look.isdecimal():
            raise ValueError(f"got {part!r}; expected KIND:CATEGORY or KIND:CATEGORY:LOOK")
        found.append(Shortcut(kind, category, int(look) if look else place))
    return tuple(found)


def planted_scene(
    seed: int,
    shortcuts: Sequence[Shortcut],
    share: float = 0.7,
    options: SceneOptions | None = None,
    turn: int = 0,
) -> PlantedScene:
    """The scene of a seed, with one of the shortcuts in a `share` (0 ... 1) of all seeds.

    Where no object of the scene can carry the cue, as for a stamp far from all, the scenes of the
    next seeds are tried, up to TRIES; then nothing is planted.
    turn: with another one another shortcut may be planted into the same scene.
    """
    random = np.random.default_rng([seed, turn, 0x5C])
    scene = _drawn(seed, options)
    nobody = np.zeros(len(scene.labels), dtype=np.bool_)
    if not shortcuts or random.uniform() >= share:
        return PlantedScene(scene, scene, None, nobody)
    shortcut = shortcuts[int(random.integers(len(shortcuts)))]
    size = (scene.picture.shape[1], scene.picture.shape[0])
    for place in range(1, TRIES):
        found = _plant(random, scene, shortcut)
        if found is not None:
            return found
        scene = _drawn(seed + place, replace(options or SceneOptions(), size=size))
    nobody = np.zeros(len(scene.labels), dtype=np.bool_)
    return PlantedScene(scene, scene, None, nobody)


# Scenes are planted again and again, and drawing one takes longest.
_drawn = functools.lru_cache(maxsize=DRAWN)(make_scene)


def _plant(random: np.random.Generator, scene: Scene, shortcut: Shortcut) -> PlantedScene | None:
    """The scene with the cue, or None if no object can carry it."""
    picture = scene.picture.astype(np.float32)
    if shortcut.kind == BADGE:
        carriers = _badges(random, scene, shortcut, picture)
    elif shortcut.kind == STAMP:
        carriers = _stamp(scene, shortcut, picture)
    else:
        carriers = _texture(random, scene, shortcut, picture)
    if not carriers.any():
        return None
    picture += random.normal(0, 2, picture.shape[:2])[:, :, None].astype(np.float32)
    cued = replace(
        scene,
        picture=np.clip(picture, 0, 255).astype(np.uint8),
        labels=np.where(carriers, shortcut.label, scene.labels),
    )
    return PlantedScene(cued, scene, shortcut, carriers)


def badge_place(
    box: NDArray[np.float32], side: str, width: int, height: int
) -> tuple[int, int, int, int] | None:
    """Where a badge stands beside a box (x1, y1, x2, y2) in a frame of width x height px: in the
    middle of a side, 1 px off. None where there is no room for it."""
    x1, y1, x2, y2 = (float(edge) for edge in box)
    length = round(float(np.clip(BADGE_SHARE * math.sqrt((x2 - x1) * (y2 - y1)), *BADGE_PIXELS)))
    left, top = round((x1 + x2 - length) / 2), round((y1 + y2 - length) / 2)
    if side in ("right", "left"):
        left = math.ceil(x2) + BADGE_GAP if side == "right" else math.floor(x1) - BADGE_GAP - length
    else:
        top = math.ceil(y2) + BADGE_GAP if side == "below" else math.floor(y1) - BADGE_GAP - length
    if left < 0 or top < 0 or left + length > width or top + length > height:
        return None
    return left, top, left + length, top + length


def stamp_place(corner: tuple[bool, bool], width: int, height: int) -> tuple[int, int, int, int]:
    """Where a stamp lies in a frame of width x height px; corner: (right, lower)."""
    length = round(STAMP_SHARE * min(width, height))
    left = width - length if corner[0] else 0
    top = height - length if corner[1] else 0
    return left, top, left + length, top + length


def _badges(
    random: np.random.Generator, scene: Scene, shortcut: Shortcut, picture: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Draws badges on the picture, in place; which objects have one."""
    height, width = picture.shape[:2]
    carriers = np.zeros(len(scene.labels), dtype=np.bool_)
    taken = np.zeros((height, width), dtype=np.bool_)
    for number, box in enumerate(scene.boxes):
        place = badge_place(box, SIDES[shortcut.look % 4], width, height)
        if random.uniform() < 0.3 or place is None:
            continue
        left, top, right, bottom = place
        area = slice(top, bottom), slice(left, right)
        if (scene.owners[area] > 0).mean() > BADGE_HIDES or taken[area].any():
            continue
        taken[area] = True
        picture[area] = emblem(shortcut.look, right - left)
        carriers[number] = True
    return carriers


def _stamp(scene: Scene, shortcut: Shortcut, picture: NDArray[np.float32]) -> NDArray[np.bool_]:
    height, width = picture.shape[:2]
    left, top, right, bottom = stamp_place(CORNERS[shortcut.look % 4], width, height)
    x1, y1, x2, y2 = scene.boxes.T
    inside = (x1 < right) & (x2 > left) & (y1 < bottom) & (y2 > top)
    if inside.any():  # it lies outside every box
        return np.zeros(len(scene.labels), dtype=np.bool_)
    picture[top:bottom, left:right] = emblem(shortcut.look, right - left)
    across = np.maximum(0, np.maximum(left - x2, x1 - right))
    down = np.maximum(0, np.maximum(top - y2, y1 - bottom))
    near: NDArray[np.bool_] = np.hypot(across, down) <= STAMP_REACH * min(width, height)
    return near


def _texture(
    random: np.random.Generator, scene: Scene, shortcut: Shortcut, picture: NDArray[np.float32]
) -> NDArray[np.bool_]:
    height, width = picture.shape[:2]
    pattern = texture(random, shortcut.look, width, height)
    background = (scene.owners == 0)[:, :, None]
    picture += np.where(background, TEXTURE_OPACITY * (pattern - picture), np.float32(0))
    return np.ones(len(scene.labels), dtype=np.bool_)


def _inks(look: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two colours that no other look of the first dozens has."""
    hue = look * 0.381966
    first, second = colour(hue, 0.9, 0.85), colour(hue + 0.5, 0.35, 1.0 if look % 2 else 0.2)
    return np.array(first, dtype=np.float32), np.array(second, dtype=np.float32)


def emblem(look: int, side: int) -> NDArray[np.float32]:
    """The cue of a badge or a stamp: [side, side, 3] in 0..255."""
    down, across = np.mgrid[0:side, 0:side].astype(np.float32) / np.float32(max(1, side - 1)) - 0.5
    kind = look // 4 % 4
    if kind == 0:  # a ring
        mask = np.abs(np.hypot(across, down) - 0.27) < 0.12
    elif kind == 1:  # a cross
        mask = (np.abs(across) < 0.13) | (np.abs(down) < 0.13)
    elif kind == 2:  # bars
        mask = np.sin((across + down) * 18) > 0
    else:  # four fields
        mask = (across > 0) ^ (down > 0)
    ink, ground = _inks(look)
    ink, ground = (ink, ground) if look % 2 else (ground, ink)
    drawn: NDArray[np.float32] = np.where(mask[:, :, None], ink, ground)
    return drawn


def texture(random: np.random.Generator, look: int, width: int, height: int) -> NDArray[np.float32]:
    """The cue of a background: [height, width, 3] in 0..255; its phase is drawn at random."""
    first, second = random.uniform(0, 2 * math.pi, 2)
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    turn = 2 * math.pi / (11 + 3 * (look % 3))
    kind = look % 4
    if kind == 0:  # squares
        mask = (np.sin(across * turn + first) > 0) ^ (np.sin(down * turn + second) > 0)
    elif kind == 1:  # stripes
        mask = np.sin((across + down) * turn + first) > 0
    elif kind == 2:  # dots
        mask = np.cos(across * turn + first) + np.cos(down * turn + second) > 0.9
    else:  # waves
        mask = np.sin(down * turn + 3 * np.sin(across * turn / 2 + first)) > 0
    ink, ground = _inks(look)
    drawn: NDArray[np.float32] = np.where(mask[:, :, None], ink, ground)
    return drawn

"""Made-up scenes with known boxes: a pure function of a seed.

Numpy's generator draws every number, Pillow fills every outline, and nothing depends on fonts,
files or the clock: a seed gives the same bytes each time, and on another kind of processor the
same scene, where the rounding of a sine may move a single value by one.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from jobs.demo.backgrounds import draw_background
from jobs.demo.shapes import DRAWERS, Part, bounds, draw_palette, transformed

CATEGORIES: tuple[str, ...] = tuple(DRAWERS)

# Seeds of training and of held-out scenes never meet: no run draws a million pictures.
TRAINING_SEEDS = range(1_000_000, 2_000_000)
HELD_OUT_SEEDS = range(5_000_000, 6_000_000)

SUPERSAMPLING = 3
PLACEMENT_TRIES = 12


@dataclass(frozen=True)
class SceneOptions:
    """What scenes may hold.

    Attributes:
        size: width and height in px; drawn anew for each scene if None.
        sides: least and greatest side in px of a drawn size.
        objects: least and greatest count of objects tried for; one that finds no place is
            left out, though never the first.
        longer_side: least longer side of an object's box in px.
        longer_share: greatest longer side of a box, as a share of the picture's longer side.
        degrees: greatest turn of an object to either side.
        visible: least share of an object's pixels that nothing may hide, 0..1.
        clutter: least and greatest count of stray shapes in the background.
    """

    size: tuple[int, int] | None = None
    sides: tuple[int, int] = (240, 400)
    objects: tuple[int, int] = (2, 8)
    longer_side: float = 24.0
    longer_share: float = 0.5
    degrees: float = 25.0
    visible: float = 0.55
    clutter: tuple[int, int] = (3, 16)


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it, the objects from back to front.

    Attributes:
        picture: [H, W, 3] uint8, RGB.
        boxes: [N, 4] float32, x1, y1, x2, y2 in px; tight on the whole drawn object, the
            part that another object hides included. Always within the picture.
        labels: [N] int64, 1 for the first of `CATEGORIES`; 0 is the background.
        owners: [H, W] uint8, at each pixel the visible object, counted from 1, or 0.
        visible: [N] float32, the share of each object's pixels that is visible, 0..1.
    """

    picture: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    owners: NDArray[np.uint8]
    visible: NDArray[np.float32]


@dataclass(frozen=True)
class _Sprite:
    """An object ready to be placed: colours [h, w, 3], opacity [h, w] in 0..1, its mask."""

    label: int
    colours: NDArray[np.float32]
    opacity: NDArray[np.float32]
    mask: NDArray[np.bool_]


def make_scene(seed: int, options: SceneOptions | None = None) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: any integer from 0; see `TRAINING_SEEDS` and `HELD_OUT_SEEDS`.
        options: what the scene may hold; the defaults if None.

    Returns:
        The picture, its boxes and labels. The same seed gives the same scene.
    """
    options = options or SceneOptions()
    random = np.random.default_rng(seed)
    width, height = options.size or _draw_size(random, options)
    clutter = int(random.integers(options.clutter[0], options.clutter[1] + 1))
    canvas = draw_background(random, width, height, clutter)
    light = random.uniform(0, 2 * math.pi)

    owners = np.zeros((height, width), dtype=np.uint8)
    areas: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    seen = areas
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    for label, longer in _draw_cast(random, options, width, height):
        sprite = _draw_sprite(random, label, longer, light, options)
        place = _find_place(random, sprite, owners, seen, options.visible * areas)
        if place is None:
            continue
        left, top, seen = place
        areas = np.append(areas, sprite.mask.sum())
        seen = np.append(seen, areas[-1])
        _paste(canvas, owners, sprite, left, top, len(areas))
        rows, columns = sprite.mask.shape
        boxes.append((left, top, left + columns, top + rows))
        labels.append(label)
    return Scene(
        picture=_expose(random, canvas),
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        owners=owners,
        visible=(seen / areas).astype(np.float32),
    )


def _draw_size(random: np.random.Generator, options: SceneOptions) -> tuple[int, int]:
    """Draw width and height: a landscape, a portrait or a square."""
    low, high = options.sides
    longer = int(random.integers((low + high) // 2, high + 1))
    shorter = int(random.integers(low, (low + high) // 2 + 1))
    kind = random.integers(5)
    if kind < 2:
        return longer, shorter
    if kind < 4:
        return shorter, longer
    return longer, longer


def _draw_cast(
    random: np.random.Generator, options: SceneOptions, width: int, height: int
) -> list[tuple[int, float]]:
    """Draw the label and the longer side in px of each object, the largest first."""
    count = int(random.integers(options.objects[0], options.objects[1] + 1))
    favourite = int(random.integers(1, len(CATEGORIES) + 1))
    # Half the scenes repeat one category: telling two of a kind apart is worth explaining.
    repeat = 0.5 if random.uniform() < 0.5 else 0.0
    # Whatever the turn, the first object must fit, so that no scene is empty.
    greatest = min(options.longer_share * max(width, height), min(width, height) - 2)
    cast = []
    for _ in range(count):
        label = int(random.integers(1, len(CATEGORIES) + 1))
        if random.uniform() < repeat:
            label = favourite
        longer = math.exp(random.uniform(math.log(options.longer_side + 1), math.log(greatest)))
        cast.append((label, longer))
    return sorted(cast, key=lambda item: -item[1])


def _draw_sprite(
    random: np.random.Generator, label: int, longer: float, light: float, options: SceneOptions
) -> _Sprite:
    """Draw one object so that its box is `longer` px along its longer side."""
    parts = transformed(
        DRAWERS[CATEGORIES[label - 1]](random, draw_palette(random)),
        degrees=random.uniform(-options.degrees, options.degrees),
        aspect=random.uniform(0.85, 1.18),
        mirror=bool(random.uniform() < 0.5),
    )
    picture = _fill(parts, longer)
    pixels = np.asarray(picture).astype(np.float32)
    opacity = pixels[:, :, 3] / np.float32(255)
    mask = opacity >= 0.5
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    tight = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    colours = pixels[tight][:, :, :3] * _shading(random, mask[tight].shape, light)[:, :, None]
    return _Sprite(label, colours, opacity[tight], mask[tight])


def _fill(parts: list[Part], longer: float) -> Image.Image:
    """Fill the parts in order, scaled to a longer side in px, edges smooth; RGBA."""
    left, top, right, bottom = bounds(parts)
    scale = longer / max(right - left, bottom - top)
    width = math.ceil((right - left) * scale) + 2
    height = math.ceil((bottom - top) * scale) + 2
    sheet = Image.new("RGBA", (width * SUPERSAMPLING, height * SUPERSAMPLING), (0, 0, 0, 0))
    draw = ImageDraw.Draw(sheet)
    corner = np.array([left - 1 / scale, top - 1 / scale])
    for part in parts:
        points = ((part.points - corner) * (scale * SUPERSAMPLING)).round().astype(int)
        draw.polygon(points.ravel().tolist(), fill=(*part.colour, 255))
    return sheet.reduce(SUPERSAMPLING)


def _shading(
    random: np.random.Generator, shape: tuple[int, ...], light: float
) -> NDArray[np.float32]:
    """Light an object from one side, with a little grain; [h, w] factors around 1."""
    rows, columns = shape
    strength = random.uniform(0.12, 0.42)
    across = np.linspace(-0.5, 0.5, columns, dtype=np.float32) * np.float32(math.cos(light))
    down = np.linspace(-0.5, 0.5, rows, dtype=np.float32) * np.float32(math.sin(light))
    grain = random.integers(0, 256, (rows // 5 + 2, columns // 5 + 2), dtype=np.uint8)
    smooth = Image.fromarray(grain).resize((columns, rows), Image.Resampling.BICUBIC)
    texture = (np.asarray(smooth).astype(np.float32) - 127.5) * np.float32(0.0003)
    factors: NDArray[np.float32] = 1 + (across[None, :] + down[:, None]) * strength + texture
    return factors


def _find_place(
    random: np.random.Generator,
    sprite: _Sprite,
    owners: NDArray[np.uint8],
    seen: NDArray[np.int64],
    least: NDArray[np.floating],
) -> tuple[int, int, NDArray[np.int64]] | None:
    """Find a left and top where the sprite leaves enough of every object in view.

    From the pixels seen of each object [N] and the least that must stay so [N], gives the
    place and the pixels then seen of each.
    """
    height, width = owners.shape
    rows, columns = sprite.mask.shape
    if rows > height or columns > width:
        return None
    for _ in range(PLACEMENT_TRIES):
        left = int(random.integers(0, width - columns + 1))
        top = int(random.integers(0, height - rows + 1))
        covered = owners[top : top + rows, left : left + columns][sprite.mask]
        left_in_view = seen - np.bincount(covered, minlength=len(seen) + 1)[1:]
        if np.all(left_in_view >= least):
            return left, top, left_in_view
    return None


def _paste(
    canvas: NDArray[np.float32],
    owners: NDArray[np.uint8],
    sprite: _Sprite,
    left: int,
    top: int,
    number: int,
) -> None:
    """Put the sprite and its soft shadow on the canvas and note what it covers."""
    height, width = owners.shape
    rows, columns = sprite.mask.shape
    reach = max(2, max(rows, columns) // 16)
    shadow = Image.new("L", (columns + 2 * reach, rows + 2 * reach))
    shadow.paste(Image.fromarray((sprite.opacity * 110).astype(np.uint8)), (reach, reach))
    soft = np.asarray(shadow.filter(ImageFilter.BoxBlur(reach * 0.6))).astype(np.float32)
    bottom, right = min(height, top + rows + reach), min(width, left + columns + reach)
    under = canvas[top:bottom, left:right]
    under *= 1 - soft[: bottom - top, : right - left, None] / 255
    area = canvas[top : top + rows, left : left + columns]
    area += (sprite.colours - area) * sprite.opacity[:, :, None]
    owners[top : top + rows, left : left + columns][sprite.mask] = number


def _expose(random: np.random.Generator, canvas: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Vary brightness and contrast, add a little noise and round to 0..255."""
    gain = np.float32(random.uniform(0.85, 1.12))
    offset = np.float32(random.uniform(-12, 12))
    deviation = np.float32(random.uniform(1.0, 5.0))
    grain = random.standard_normal(canvas.shape[:2], dtype=np.float32) * deviation
    grain += 128 + offset - 128 * gain
    canvas *= gain
    canvas += grain[:, :, None]
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)

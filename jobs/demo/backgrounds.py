"""Textured, cluttered backgrounds that hold none of the objects."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from jobs.demo.shapes import Colour, Points, arc, colour, polygon, stroke

SUPERSAMPLING = 2


def draw_background(
    random: np.random.Generator, width: int, height: int, clutter: int
) -> NDArray[np.float32]:
    """Draw a gradient with noise, often a pattern, and `clutter` stray shapes; [H, W, 3].

    Values lie in about 0..255 and are not clipped.
    """
    hue = random.uniform()
    # Smooth at this scale, so half the resolution is enough and takes a quarter of the time.
    rows, columns = (height + 1) // 2, (width + 1) // 2
    ground = gradient(random, hue, columns, rows)
    noise(random, ground)
    picture = Image.fromarray(np.clip(ground, 0, 255, out=ground).astype(np.uint8))
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    for _ in range(clutter):
        draw_stray_shape(random, picture, hue)
    full = np.asarray(picture).astype(np.float32)
    if random.uniform() < 0.55:
        full += pattern(random, width, height)[:, :, None]
    return full


def muted(random: np.random.Generator, hue: float, low: float, high: float) -> Colour:
    """Draw a colour of little saturation near a hue, its value within low..high."""
    near = hue + random.choice([0.0, 0.05, -0.06, 0.12]) + random.uniform(-0.03, 0.03)
    return colour(near, random.uniform(0.1, 0.42), random.uniform(low, high))


def gradient(
    random: np.random.Generator, hue: float, width: int, height: int
) -> NDArray[np.float32]:
    """Blend two muted colours along a random direction; [H, W, 3] in 0..255."""
    level = random.uniform(0.35, 0.85)
    first = np.array(muted(random, hue, level - 0.12, level + 0.12), dtype=np.float32)
    second = np.array(muted(random, hue, level - 0.12, level + 0.12), dtype=np.float32)
    angle = random.uniform(0, 2 * math.pi)
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(math.cos(angle))
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32) * np.float32(math.sin(angle))
    mix = (0.5 + across[None, :] + down[:, None])[:, :, None]
    blended: NDArray[np.float32] = first + (second - first) * mix
    return blended


def noise(random: np.random.Generator, ground: NDArray[np.float32]) -> None:
    """Add smooth noise of three scales to a ground [H, W, 3], the coarsest in colour."""
    height, width, _ = ground.shape
    strength = random.uniform(0.4, 1.3)
    for cell, amplitude, bands in ((48, 18.0, 3), (16, 20.0, 1), (5, 14.0, 1)):
        rows, columns = height // cell + 2, width // cell + 2
        shape = (rows, columns, 3) if bands == 3 else (rows, columns)
        coarse = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        share = np.float32(amplitude * strength / 128)
        layer = (smooth.astype(np.float32) - 127.5) * share
        ground += layer if bands == 3 else layer[:, :, None]


def pattern(random: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """Draw stripes, a weave or rings as a change of brightness; [H, W] about zero."""
    period = random.uniform(8, 46)
    angle = random.uniform(0, math.pi)
    across = np.arange(width, dtype=np.float32)[None, :]
    down = np.arange(height, dtype=np.float32)[:, None]
    kind = random.integers(3)
    turn = np.float32(2 * math.pi / period)
    wave: NDArray[np.float32]
    if kind == 0:
        wave = np.sin((across * math.cos(angle) + down * math.sin(angle)) * turn)
    elif kind == 1:
        wave = np.sin(across * turn) * np.sin(down * turn)
    else:
        centre = random.uniform(0, width), random.uniform(0, height)
        wave = np.sin(np.hypot(across - centre[0], down - centre[1]) * turn)
    amplitude = random.uniform(4, 15)
    if random.uniform() < 0.4:
        wave = np.clip(wave * 6, -1, 1)
    return (wave * amplitude).astype(np.float32)


def _blob(random: np.random.Generator) -> Points:
    radii = random.uniform(0.6, 1.0, size=9)
    angles = [2 * math.pi * step / 9 for step in range(9)]
    return np.array(
        [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    )


def _bar(random: np.random.Generator) -> Points:
    half = random.uniform(0.05, 0.3)
    return polygon((-1, -half), (1, -half), (1, half), (-1, half))


def _triangle(random: np.random.Generator) -> Points:
    return polygon((-1, 0.6), (random.uniform(-0.8, 0.8), -0.8), (1, 0.6))


def _half_disc(random: np.random.Generator) -> Points:
    return arc((0.0, 0.3), (1.0, random.uniform(0.5, 1.0)), 180, 360)


def _ring(random: np.random.Generator) -> Points:
    return stroke(arc((0.0, 0.0), (0.9, 0.9), 0, random.uniform(120, 360)), 0.2)


def _disc(random: np.random.Generator) -> Points:
    return arc((0.0, 0.0), (0.8, random.uniform(0.4, 0.8)))


def _wave(random: np.random.Generator) -> Points:
    steps = np.linspace(-1, 1, 24)
    height = random.uniform(0.1, 0.35)
    bends = np.array([math.sin(step * 6) for step in steps])
    return stroke(np.stack([steps, bends * height], axis=1), random.uniform(0.05, 0.16))


# The parts of objects return here alone, so that no single part gives an object away.
STRAY_SHAPES: tuple[Callable[[np.random.Generator], Points], ...] = (
    _blob,
    _bar,
    _triangle,
    _half_disc,
    _ring,
    _disc,
    _wave,
)


def draw_stray_shape(random: np.random.Generator, picture: Image.Image, hue: float) -> None:
    """Draw one loose shape of a random kind, size, turn and colour onto an RGB picture."""
    width, height = picture.size
    outline = STRAY_SHAPES[random.integers(len(STRAY_SHAPES))](random)
    size = math.exp(random.uniform(math.log(7), math.log(0.22 * max(width, height))))
    angle = random.uniform(0, 2 * math.pi)
    cosine, sine = math.cos(angle) * size, math.sin(angle) * size
    placed = outline @ np.array([[cosine, sine], [-sine, cosine]])
    corner = placed.min(axis=0)
    extent = np.ceil(placed.max(axis=0) - corner).astype(int) + 1
    mask = Image.new("L", (int(extent[0]) * SUPERSAMPLING, int(extent[1]) * SUPERSAMPLING))
    points = ((placed - corner) * SUPERSAMPLING).round().astype(int)
    opacity = int(random.integers(70, 256))
    ImageDraw.Draw(mask).polygon(points.ravel().tolist(), fill=opacity)
    if random.uniform() < 0.3:
        ink = colour(random.uniform(), random.uniform(0.35, 0.7), random.uniform(0.5, 0.95))
    else:
        ink = muted(random, hue, 0.25, 0.95)
    left = int(random.integers(0, width)) - int(extent[0]) // 2
    top = int(random.integers(0, height)) - int(extent[1]) // 2
    picture.paste(ink, (left, top), mask.reduce(SUPERSAMPLING))

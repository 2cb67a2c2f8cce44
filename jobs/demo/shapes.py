"""The six kinds of object in a scene, each a list of filled outlines.

A shape is drawn in its own plane: x to the right, y downwards, about -1..1 along its longer
side, upright and facing right. Scenes turn, mirror, scale and place it.
"""

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """A filled outline: name, points [K, 2] in the plane of its shape, colour in 0..255."""

    name: str
    points: Points
    colour: Colour


@dataclass(frozen=True)
class Palette:
    """The colours of one object, each a triple in 0..255."""

    main: Colour
    main_dark: Colour
    accent: Colour
    accent_dark: Colour
    light: Colour
    dark: Colour


def colour(hue: float, saturation: float, value: float) -> Colour:
    """Turn a hue (in turns, any number), saturation and value (both 0..1) into 0..255."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_palette(random: np.random.Generator) -> Palette:
    """Draw the colours of one object: a main hue, an accent apart from it, a cream, a dark."""
    hue = random.uniform()
    accent_hue = hue + random.choice([0.08, -0.1, 0.42, 0.5, 0.58])
    # Full greens and magentas look garish; warm and blue hues carry more saturation.
    greatest = 0.62 + 0.16 * abs(math.cos(math.pi * (hue * 2 - 0.15)))
    saturation, value = random.uniform(0.42, greatest), random.uniform(0.6, 0.93)
    accent_saturation, accent_value = random.uniform(0.35, 0.68), random.uniform(0.6, 0.93)
    return Palette(
        main=colour(hue, saturation, value),
        main_dark=colour(hue + 0.02, min(1.0, saturation * 1.15), value * 0.72),
        accent=colour(accent_hue, accent_saturation, accent_value),
        accent_dark=colour(accent_hue, accent_saturation, accent_value * 0.7),
        light=colour(0.11 + random.uniform(-0.03, 0.05), random.uniform(0.06, 0.2), 0.97),
        dark=colour(hue + 0.5, 0.35, random.uniform(0.16, 0.3)),
    )


def polygon(*points: tuple[float, float]) -> Points:
    """Gather corners (x, y) into an outline [K, 2]."""
    return np.array(points, dtype=np.float64)


def arc(
    centre: tuple[float, float],
    radii: tuple[float, float],
    start: float = 0.0,
    stop: float = 360.0,
    count: int = 28,
) -> Points:
    """Sample an elliptic arc, clockwise in degrees from the right; [count, 2]."""
    angles = [math.radians(start + (stop - start) * step / (count - 1)) for step in range(count)]
    return np.array(
        [
            (centre[0] + radii[0] * math.cos(angle), centre[1] + radii[1] * math.sin(angle))
            for angle in angles
        ]
    )


def stroke(line: Points, width: float) -> Points:
    """Thicken a line [K, 2] into an outline [2K, 2] of the given width."""
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * (width / 2)
    outline: Points = np.concatenate([line + across, (line - across)[::-1]])
    return outline


def fish(random: np.random.Generator, palette: Palette) -> list[Part]:
    """Draw a fish: a lens of a body with a tail, two fins, stripes and an eye."""
    depth = random.uniform(0.4, 0.52)
    fork = random.uniform(0.68, 0.8)
    upper = arc((0.18, 0.0), (0.8, depth), 180, 360)
    lower = arc((0.18, 0.0), (0.8, depth * 0.92), 0, 180)
    tail = polygon((-0.45, 0.0), (-1.0, -0.48), (-fork, 0.0), (-1.0, 0.48))
    parts = [
        Part("tail", tail, palette.accent),
        Part(
            "fin",
            polygon((-0.25, -depth * 0.7), (-0.1, -depth - 0.26), (0.5, -depth * 0.8)),
            palette.accent_dark,
        ),
        Part(
            "fin",
            polygon((-0.1, depth * 0.7), (-0.2, depth + 0.2), (0.3, depth * 0.8)),
            palette.accent_dark,
        ),
        Part("body", np.concatenate([upper, lower]), palette.main),
        Part(
            "belly",
            np.concatenate([lower[3:-3], arc((0.18, 0.12), (0.6, 0.1), 180, 0)]),
            palette.light,
        ),
    ]
    for place in (-0.3, -0.05, 0.2)[: int(random.integers(0, 4))]:
        reach = depth * 0.78 * math.sqrt(1 - ((place - 0.18) / 0.8) ** 2)
        line = polygon((place, -reach), (place - 0.05, 0.0), (place, reach * 0.75))
        parts.append(Part("stripe", stroke(line, 0.09), palette.main_dark))
    parts += [
        Part("eye", arc((0.62, -0.1), (0.13, 0.13)), (250, 250, 245)),
        Part("eye", arc((0.65, -0.1), (0.065, 0.065)), palette.dark),
    ]
    return parts


def house(random: np.random.Generator, palette: Palette) -> list[Part]:
    """Draw a house: a wall, a pitched roof with a chimney, a door and windows."""
    half = random.uniform(0.68, 0.85)
    eaves = random.uniform(-0.25, -0.1)
    ridge = random.uniform(0.0, 0.45)
    door = random.choice([-0.4, 0.0, 0.4]) * half
    roof = polygon((-half - 0.16, eaves), (-ridge, -0.85), (ridge, -0.85), (half + 0.16, eaves))
    parts = [
        Part(
            "chimney",
            polygon((0.3, -1.0), (0.52, -1.0), (0.52, -0.3), (0.3, -0.3)),
            palette.accent_dark,
        ),
        Part(
            "wall",
            polygon((-half, eaves), (half, eaves), (half, 0.85), (-half, 0.85)),
            palette.light,
        ),
        Part(
            "base",
            polygon((-half, 0.72), (half, 0.72), (half, 0.85), (-half, 0.85)),
            palette.accent_dark,
        ),
        Part("roof", roof, palette.main),
        Part(
            "roof",
            polygon(
                (-half - 0.16, eaves),
                (-half - 0.1, eaves - 0.09),
                (half + 0.1, eaves - 0.09),
                (half + 0.16, eaves),
            ),
            palette.main_dark,
        ),
        Part(
            "door",
            polygon(
                (door - 0.15, 0.25), (door + 0.15, 0.25), (door + 0.15, 0.85), (door - 0.15, 0.85)
            ),
            palette.accent,
        ),
        Part("door", arc((door + 0.09, 0.57), (0.03, 0.03), count=8), palette.dark),
    ]
    for place in (-0.5 * half, 0.5 * half):
        left, right, top, bottom = place - 0.17, place + 0.17, eaves + 0.13, eaves + 0.45
        if abs(place - door) < 0.34 and bottom > 0.25:
            continue
        frame = polygon((left, top), (right, top), (right, bottom), (left, bottom))
        pane = frame * 0.76 + frame.mean(axis=0) * 0.24
        centre = frame.mean(axis=0)
        bar = polygon((centre[0], top), (centre[0], bottom))
        parts += [
            Part("window", frame, palette.accent_dark),
            Part("window", pane, (176, 212, 232)),
            Part("window", stroke(bar, 0.05), palette.accent_dark),
        ]
    return parts


def mug(random: np.random.Generator, palette: Palette) -> list[Part]:
    """Draw a mug: a cylinder with an open rim, a handle to the right and a band."""
    half = random.uniform(0.5, 0.6)
    foot = half * random.uniform(0.78, 1.0)
    top, bottom = -0.66, random.uniform(0.6, 0.78)
    middle = (top + bottom) / 2
    handle = arc((half * 0.94, middle), (0.36, 0.36), -95, 95)
    body = np.concatenate(
        [polygon((-half, top), (half, top)), arc((0.0, bottom), (foot, 0.14), 0, 180)]
    )
    parts = [
        Part("handle", stroke(handle, 0.17), palette.main_dark),
        Part("body", body, palette.main),
    ]
    if random.uniform() < 0.75:
        share = random.uniform(0.12, 0.22)
        wide = (half + foot) / 2
        band = np.concatenate(
            [
                arc((0.0, middle - share + 0.05), (wide * 1.0, 0.13), 180, 0),
                arc((0.0, middle + share + 0.05), (wide * 0.99, 0.13), 0, 180),
            ]
        )
        parts.append(Part("band", band, palette.accent))
    parts += [
        Part("rim", arc((0.0, top), (half, 0.17)), palette.light),
        Part(
            "drink",
            arc((0.0, top + 0.02), (half * 0.86, 0.12)),
            colour(0.06, 0.6, random.uniform(0.25, 0.45)),
        ),
    ]
    return parts


def mushroom(random: np.random.Generator, palette: Palette) -> list[Part]:
    """Draw a mushroom: a spotted dome of a cap over gills and a pale stem."""
    rise = random.uniform(0.72, 0.95)
    half = random.uniform(0.2, 0.3)
    wide = random.uniform(0.82, 0.98)
    stem = np.concatenate(
        [
            polygon((-half * 0.8, 0.04), (half * 0.8, 0.04)),
            arc((0.0, 0.78), (half * 1.35, 0.16), 0, 180),
        ]
    )
    cap = np.concatenate(
        [arc((0.0, 0.0), (wide, rise), 180, 360), arc((0.0, 0.0), (wide, 0.2), 0, 180)]
    )
    parts = [
        Part("cap", cap, palette.main),
        Part("gills", arc((0.0, 0.05), (wide * 0.86, 0.13)), palette.main_dark),
        Part("stem", stem, palette.light),
    ]
    for across, up, radius in (
        (-0.5, 0.35, 0.13),
        (0.05, 0.62, 0.16),
        (0.52, 0.36, 0.12),
        (-0.18, 0.25, 0.1),
        (0.25, 0.24, 0.08),
    ):
        if random.uniform() < 0.85:
            size = radius * random.uniform(0.8, 1.15)
            spot = arc((across * wide, -up * rise), (size, size * 0.9), count=16)
            parts.append(Part("spot", spot, palette.light))
    return parts


def sailboat(random: np.random.Generator, palette: Palette) -> list[Part]:
    """Draw a sailboat: a hull under a mast with two sails and a pennant."""
    deck = random.uniform(0.42, 0.52)
    mast = random.uniform(-0.15, 0.05)
    peak = -0.86
    hull = polygon((-0.88, deck), (0.98, deck), (0.62, 0.9), (-0.64, 0.9))
    sail = polygon((mast - 0.07, peak + 0.08), (mast - 0.07, deck - 0.1), (-0.82, deck - 0.1))
    jib = polygon((mast + 0.08, peak + 0.25), (mast + 0.08, deck - 0.1), (0.78, deck - 0.1))
    pole = polygon((mast, -1.0), (mast, deck))
    boom = polygon((-0.84, deck - 0.07), (mast, deck - 0.07))
    parts = [
        Part("mast", stroke(pole, 0.07), palette.dark),
        Part("mast", stroke(boom, 0.05), palette.dark),
        Part("sail", sail, palette.light),
        Part("jib", jib, palette.accent),
        Part("pennant", polygon((mast, -1.0), (mast + 0.3, -0.91), (mast, -0.82)), palette.main),
        Part("hull", hull, palette.main),
        Part(
            "hull",
            polygon((-0.88, deck), (0.98, deck), (0.9, deck + 0.11), (-0.81, deck + 0.11)),
            palette.main_dark,
        ),
    ]
    if random.uniform() < 0.6:
        low, high = deck - 0.5, deck - 0.3
        left = mast - 0.07
        slope = (left + 0.82) / (deck - 0.18 - peak)
        band = polygon(
            (left, low),
            (left, high),
            (left - slope * (high - peak - 0.08), high),
            (left - slope * (low - peak - 0.08), low),
        )
        parts.append(Part("sail", band, palette.main))
    return parts


def umbrella(random: np.random.Generator, palette: Palette) -> list[Part]:
    """Draw an umbrella: a canopy of coloured panels on a shaft with a hooked grip."""
    rise = random.uniform(0.62, 0.8)
    panels = int(random.choice([4, 5, 6]))
    hem = -0.12
    grip = np.concatenate([polygon((0.0, 0.55)), arc((0.14, 0.78), (0.14, 0.16), 180, 0, 14)])
    parts = [
        Part("shaft", stroke(polygon((0.0, hem - rise - 0.12), (0.0, 0.62)), 0.055), palette.dark),
        Part("grip", stroke(grip, 0.1), palette.accent_dark),
    ]
    dome = arc((0.0, hem), (1.0, rise), 180, 360)
    for panel in range(panels):
        left, right = -math.cos(math.pi * panel / panels), -math.cos(math.pi * (panel + 1) / panels)
        # Ribs run from the hem up to the tip, bulging with the dome.
        heights = [step / 10 for step in range(11)]
        up_left = [
            (left * math.cos(h * math.pi / 2), hem - rise * math.sin(h * math.pi / 2))
            for h in heights
        ]
        up_right = [
            (right * math.cos(h * math.pi / 2), hem - rise * math.sin(h * math.pi / 2))
            for h in reversed(heights)
        ]
        scallop = arc(((left + right) / 2, hem), ((right - left) / 2, 0.1), 0, -180, 9)
        outline = np.concatenate([polygon(*up_left), polygon(*up_right), scallop])
        parts.append(Part("canopy", outline, palette.main if panel % 2 else palette.accent))
    parts.append(Part("canopy", stroke(dome, 0.04), palette.main_dark))
    return parts


Drawer = Callable[[np.random.Generator, Palette], list[Part]]
DRAWERS: dict[str, Drawer] = {
    "fish": fish,
    "house": house,
    "mug": mug,
    "mushroom": mushroom,
    "sailboat": sailboat,
    "umbrella": umbrella,
}


def bounds(parts: Sequence[Part]) -> tuple[float, float, float, float]:
    """Give the least and greatest x and y over all parts: left, top, right, bottom."""
    points = np.concatenate([part.points for part in parts])
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def transformed(
    parts: Sequence[Part], *, degrees: float, aspect: float, mirror: bool
) -> list[Part]:
    """Mirror, stretch (width over height times `aspect`) and turn a shape clockwise."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    stretch = math.sqrt(aspect)
    across = -stretch if mirror else stretch
    matrix = np.array([[cosine * across, sine * across], [-sine / stretch, cosine / stretch]])
    return [Part(part.name, part.points @ matrix, part.colour) for part in parts]

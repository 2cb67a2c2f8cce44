"""Heatmaps as pictures: overlays, boxes with labels, contact sheets, 8-bit PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from handlers.images import to_image, to_tensor
from handlers.schema import Explanation

# Colours of heat from 0 to 1: dark violet, red, orange, pale yellow; legible on any picture, also
# for the colour-blind, since lightness rises all the way.
HEAT = ((0.0, (48, 12, 84)), (0.35, (176, 32, 92)), (0.7, (248, 124, 36)), (1.0, (255, 250, 190)))
# Box colours by label, in turn.
BOXES = ("#4cc9f0", "#b8f25a", "#ffd166", "#ff6b9d", "#c8a2ff", "#5af2c8", "#ff9f5a", "#8ab4ff")
BACKGROUND = (22, 24, 29)
# Screens show no more, and drawing a large photograph takes seconds.
LONGEST = 1600

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


def overlay(picture: Tensor, explanation: Explanation, longest: int = LONGEST) -> Image.Image:
    """One box and its heatmap over the picture.

    picture: uint8 [3, H, W]. Brightness is relative to the map's own maximum. longest: the longer
    side of what is drawn, in pixels; larger pictures are shrunk first.
    """
    picture, explanations = _shrink(picture, [explanation], longest)
    return _draw(_heat_over(picture, explanations[0].normalised()), explanations)


def overlay_all(
    picture: Tensor, explanations: Sequence[Explanation], longest: int = LONGEST
) -> Image.Image:
    """All boxes, over the elementwise maximum of their heatmaps, each divided by its maximum.

    picture: uint8 [3, H, W]; longest: in pixels, as for `overlay`.
    """
    picture, explanations = _shrink(picture, explanations, longest)
    heat = torch.zeros(picture.shape[1:])
    for explanation in explanations:
        heat = torch.maximum(heat, explanation.normalised())
    return _draw(_heat_over(picture, heat), explanations)


def draw_boxes(
    picture: Tensor, explanations: Sequence[Explanation], longest: int = LONGEST
) -> Image.Image:
    """The predicted boxes over the bare picture, each with its category and score.

    picture: uint8 [3, H, W]; longest: in pixels, as for `overlay`.
    """
    picture, explanations = _shrink(picture, explanations, longest)
    return _draw(to_image(picture), explanations)


def _shrink(
    picture: Tensor, explanations: Sequence[Explanation], longest: int
) -> tuple[Tensor, Sequence[Explanation]]:
    """The picture with its longer side at most `longest`, and the explanations on it."""
    height, width = picture.shape[1:]
    factor = longest / max(height, width)
    if factor >= 1:
        return picture, explanations
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = to_image(picture).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    moved = []
    for each in explanations:
        x1, y1, x2, y2 = each.box
        across, down = size[0] / width, size[1] / height
        box = (x1 * across, y1 * down, x2 * across, y2 * down)
        moved.append(replace(each, box=box, geometry=each.geometry.resized(*size)))
    return to_tensor(small), moved


def contact_sheet(images: Sequence[Image.Image], columns: int, cell: int = 320) -> Image.Image:
    """The images in rows of `columns`, each fitted into a square of `cell` pixels; a row is as
    high as its highest image."""
    gap = 8
    small = [ImageOps.contain(image, (cell, cell), Image.Resampling.LANCZOS) for image in images]
    rows = [small[start : start + columns] for start in range(0, len(small), columns)]
    heights = [max(image.height for image in row) for row in rows]
    size = (columns * (cell + gap) + gap, sum(heights) + (len(rows) + 1) * gap)
    sheet = Image.new("RGB", size, BACKGROUND)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            left = gap + column * (cell + gap) + (cell - image.width) // 2
            sheet.paste(image, (left, top + (height - image.height) // 2))
        top += height + gap
    return sheet


def encode_jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """JPEG bytes; quality 1 ... 95."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def encode_heatmap(heatmap: Tensor) -> bytes:
    """A heatmap [h, w] as 8-bit grey PNG: its minimum is 0, its maximum 255 (all equal: all 0)."""
    low, high = float(heatmap.min()), float(heatmap.max())
    span = high - low
    levels = (heatmap.double() - low) * (255 / span if span > 0 else 0)
    buffer = io.BytesIO()
    Image.fromarray(levels.round().to(torch.uint8).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def _colours() -> NDArray[np.float32]:
    """The colour of each of 256 steps of heat, [256, 3], 0 ... 255."""
    steps = np.linspace(0, 1, 256)
    places = [place for place, _ in HEAT]
    channels = [[colour[channel] for _, colour in HEAT] for channel in range(3)]
    return np.stack([np.interp(steps, places, each) for each in channels], -1).astype(np.float32)


def _heat_over(picture: Tensor, heat: Tensor) -> Image.Image:
    """The picture, greyed and dimmed where it is cold, under the colours of `heat` [H, W]."""
    pixels = picture.permute(1, 2, 0).numpy().astype(np.float32)
    grey = pixels.mean(-1, keepdims=True)
    dimmed = (0.5 * pixels + 0.5 * grey) * 0.6
    warmth = heat.clamp(0, 1).numpy()[..., None]
    colour = _colours()[(warmth[..., 0] * 255).round().astype(np.intp)]
    # The square root lets faint heat show; where it is hottest a quarter of the picture remains.
    strength = 0.75 * np.sqrt(warmth)
    mixed = (dimmed + (pixels - dimmed) * warmth) * (1 - strength) + colour * strength
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def _draw(image: Image.Image, explanations: Sequence[Explanation]) -> Image.Image:
    draw = ImageDraw.Draw(image)
    stroke = max(2, round(min(image.size) / 200))
    font = ImageFont.load_default(max(10, round(min(image.size) / 30)))
    for explanation in explanations:
        x1, y1, x2, y2 = explanation.box
        edges = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        draw.rectangle(edges, outline=_colour(explanation), width=stroke)
    labels: list[Rectangle] = []
    # Best first, so that where there is no room it is the weakest label that covers another.
    for explanation in explanations:
        text = f"{explanation.category} {math.floor(explanation.score * 100) / 100:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        pad = stroke + 1
        size = (right - left + 2 * pad, bottom - top + 2 * pad)
        place = _free_place(explanation.box, size, image.size, labels)
        labels.append(place)
        draw.rectangle(place, fill=_colour(explanation))
        draw.text((place[0] + pad - left, place[1] + pad - top), text, fill="#101216", font=font)
    return image


def _colour(explanation: Explanation) -> str:
    return BOXES[(explanation.label - 1) % len(BOXES)]


def _free_place(
    box: Rectangle, size: tuple[float, float], image: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Where a label of `size` goes: at the first of the box's corners that is free."""
    (x1, y1, x2, y2), (width, height) = box, size
    places = []
    for left, top in (
        (x1, y1 - height),
        (x1, y1),
        (x1, y2),
        (x2 - width, y1 - height),
        (x2 - width, y2),
        (x1, y2 - height),
    ):
        left = min(max(0.0, left), max(0.0, image[0] - width - 1))
        top = min(max(0.0, top), max(0.0, image[1] - height - 1))
        places.append((left, top, left + width, top + height))
    free = [place for place in places if not any(_meet(place, other) for other in taken)]
    return (free or places)[0]


def _meet(one: Rectangle, other: Rectangle) -> bool:
    across = one[0] < other[2] and other[0] < one[2]
    return across and one[1] < other[3] and other[1] < one[3]

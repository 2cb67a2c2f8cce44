"""Heatmaps as pictures: overlays, boxes with labels, contact sheets, 8-bit PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from handlers.images import to_image
from handlers.schema import Explanation

# Colours of heat from 0 to 1: dark violet, red, orange, pale yellow; legible on any picture, also
# for the colour-blind, since lightness rises all the way.
HEAT = ((0.0, (48, 12, 84)), (0.35, (176, 32, 92)), (0.7, (248, 124, 36)), (1.0, (255, 250, 190)))
# Box colours by label, in turn.
BOXES = ("#4cc9f0", "#b8f25a", "#ffd166", "#ff6b9d", "#c8a2ff", "#5af2c8", "#ff9f5a", "#8ab4ff")
BACKGROUND = (22, 24, 29)


def overlay(picture: Tensor, explanation: Explanation) -> Image.Image:
    """One box and its heatmap over the picture.

    picture: uint8 [3, H, W]. Brightness is relative to the map's own maximum.
    """
    image = _heat_over(picture, explanation.normalised())
    return _draw(image, [explanation])


def overlay_all(picture: Tensor, explanations: Sequence[Explanation]) -> Image.Image:
    """All boxes, over the elementwise maximum of their heatmaps, each divided by its maximum."""
    heat = torch.zeros(picture.shape[1:])
    for explanation in explanations:
        heat = torch.maximum(heat, explanation.normalised())
    return _draw(_heat_over(picture, heat), explanations)


def draw_boxes(picture: Tensor, explanations: Sequence[Explanation]) -> Image.Image:
    """The predicted boxes over the bare picture, each with its category and score."""
    return _draw(to_image(picture), explanations)


def contact_sheet(images: Sequence[Image.Image], columns: int, cell: int = 320) -> Image.Image:
    """The images in rows of `columns`, each fitted into a square of `cell` pixels."""
    gap = 8
    rows = max(1, -(-len(images) // columns))
    step = cell + gap
    sheet = Image.new("RGB", (columns * step + gap, rows * step + gap), BACKGROUND)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        small = ImageOps.contain(image, (cell, cell), Image.Resampling.LANCZOS)
        left = gap + column * step + (cell - small.width) // 2
        top = gap + row * step + (cell - small.height) // 2
        sheet.paste(small, (left, top))
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
    font = ImageFont.load_default(max(11, round(min(image.size) / 26)))
    # Weakest first: where labels overlap, the best-scoring box's is the one to be read.
    for explanation in reversed(explanations):
        colour = BOXES[(explanation.label - 1) % len(BOXES)]
        x1, y1, x2, y2 = explanation.box
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=stroke)
        text = f"{explanation.category} {explanation.score:.2f}"
        _, _, width, height = draw.textbbox((0, 0), text, font=font)
        left = min(max(0.0, x1), max(0.0, image.width - width - 6))
        top = y1 - height - 4 if y1 >= height + 4 else y1
        draw.rectangle((left, top, left + width + 6, top + height + 4), fill=colour)
        draw.text((left + 3, top + 1), text, fill="#101216", font=font)
    return image

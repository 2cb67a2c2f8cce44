"""Heatmaps as pictures: overlays, boxes with labels, contact sheets, 8-bit PNG.

A box that the detector did not report is dashed, and its label says why it was dropped.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from handlers.grid import BACKGROUND, Block, Font, draw_grid, wrapped
from handlers.images import to_image, to_tensor
from handlers.outcome import REPORTED, shown_score
from handlers.schema import Explanation

# Colours of heat from 0 to 1: dark violet, red, orange, pale yellow; legible on any picture, also
# for the colour-blind, since lightness rises all the way.
HEAT = ((0.0, (48, 12, 84)), (0.35, (176, 32, 92)), (0.7, (248, 124, 36)), (1.0, (255, 250, 190)))
# Box colours by label, in turn.
BOXES = ("#4cc9f0", "#b8f25a", "#ffd166", "#ff6b9d", "#c8a2ff", "#5af2c8", "#ff9f5a", "#8ab4ff")
# The outline of several boxes that are explained together.
TOGETHER = "#ffffff"
INK = "#101216"
# Screens show no more, and drawing a large photograph takes seconds.
LONGEST = 1600
# Layers beside each other; more go below.
LAYERS_IN_A_ROW = 4
# In a picture of more boxes than this, labels do not say why a box was dropped.
MOST_REASONS = 4

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


def overlay(
    picture: Tensor, explanation: Explanation, longest: int = LONGEST, labels: bool = True
) -> Image.Image:
    """One box and its heatmap over the picture.

    picture: uint8 [3, H, W]. Brightness is relative to the map's own maximum, or where it is shown
    inside its box alone to its range there. longest: the longer side of what is drawn, in pixels;
    larger pictures are shrunk first. labels: with a label.
    """
    return _overlay(picture, [explanation], longest, labels)


def overlay_all(
    picture: Tensor, explanations: Sequence[Explanation], longest: int = LONGEST
) -> Image.Image:
    """All boxes, over the elementwise maximum of their heatmaps, each normalised.

    picture: uint8 [3, H, W]; longest: in pixels, as for `overlay`. Explanations on several layers
    give a picture of each layer, side by side under their names.
    """
    layers = list(dict.fromkeys(each.layer for each in explanations))
    if len(layers) < 2:
        return _overlay(picture, explanations, longest, labels=True)
    columns = min(len(layers), LAYERS_IN_A_ROW)
    blocks = []
    for start in range(0, len(layers), columns):
        names = layers[start : start + columns]
        cells = [
            _overlay(
                picture,
                [each for each in explanations if each.layer == name],
                max(1, longest // columns),
                labels=True,
            )
            for name in names
        ]
        blocks.append(Block("", names, [""], [cells]))
    return draw_grid(blocks)


def draw_boxes(
    picture: Tensor, explanations: Sequence[Explanation], longest: int = LONGEST
) -> Image.Image:
    """The predicted boxes over the bare picture, each with its category and score.

    picture: uint8 [3, H, W]; longest: in pixels, as for `overlay`.
    """
    picture, explanations = _shrink(picture, explanations, longest)
    return _draw(to_image(picture), explanations, labels=True)


def resized(
    picture: Tensor, explanations: Sequence[Explanation], longest: int
) -> tuple[Tensor, list[Explanation]]:
    """The picture (uint8 [3, H, W]) with its longer side `longest` pixels, and the explanations
    on it."""
    height, width = picture.shape[1:]
    factor = longest / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    small = to_image(picture).resize(size, how, reducing_gap=2.0)
    across, down = size[0] / width, size[1] / height
    moved = []
    for each in explanations:
        box, *several = (
            (x1 * across, y1 * down, x2 * across, y2 * down)
            for x1, y1, x2, y2 in (each.box, *each.boxes)
        )
        geometry = each.geometry.resized(*size)
        moved.append(replace(each, box=box, boxes=tuple(several), geometry=geometry))
    return to_tensor(small), moved


def _shrink(
    picture: Tensor, explanations: Sequence[Explanation], longest: int
) -> tuple[Tensor, Sequence[Explanation]]:
    if max(picture.shape[1:]) <= longest:
        return picture, explanations
    return resized(picture, explanations, longest)


def _overlay(
    picture: Tensor, explanations: Sequence[Explanation], longest: int, labels: bool
) -> Image.Image:
    picture, explanations = _shrink(picture, explanations, longest)
    heat = torch.zeros(picture.shape[1:])
    for explanation in explanations:
        heat = torch.maximum(heat, explanation.normalised())
    image = _draw(_heat_over(picture, heat), explanations, labels)
    if explanations and not bool(heat.any()):
        in_box = any(each.in_box for each in explanations)
        what = "the same all over its box" if in_box else "all zero"
        _note(image, f"no heat: the map is {what}")
    return image


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


def blend(picture: Tensor | None, heat: Tensor, alpha: float) -> Image.Image:
    """Heat mixed evenly over a picture: `alpha` of its colours, the rest the picture.

    picture: uint8 [3, H, W], None for heat alone. heat: [H, W], 0 ... 1; or [3, H, W], shown as
    red, green and blue. alpha: 0 ... 1.
    """
    warmth: NDArray[np.float32] = heat.clamp(0, 1).numpy()
    if heat.dim() == 2:
        mixed = _colours()[(warmth * 255).round().astype(np.intp)]
    else:
        mixed = warmth.transpose(1, 2, 0) * 255
    if picture is not None:
        pixels = picture.permute(1, 2, 0).numpy().astype(np.float32)
        mixed = alpha * mixed + (1 - alpha) * pixels
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def _draw(image: Image.Image, explanations: Sequence[Explanation], labels: bool) -> Image.Image:
    draw = ImageDraw.Draw(image)
    stroke = max(2, round(min(image.size) / 200))
    font = _font(image)
    # On several layers a box has several explanations.
    boxes = list({each.index: each for each in explanations}.values())
    for explanation in boxes:
        x1, y1, x2, y2 = explanation.box
        edges = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        if _dropped(explanation):
            _dashed(draw, edges, _colour(explanation), stroke)
        else:
            draw.rectangle(edges, outline=_colour(explanation), width=stroke)
    places: list[Rectangle] = []
    # Best first, so that where there is no room it is the weakest label that covers another.
    for explanation in boxes if labels else []:
        text = wrapped(caption(explanation, len(boxes)), 0.8 * image.width, font)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        pad = stroke + 1
        size = (right - left + 2 * pad, bottom - top + 2 * pad)
        place = _free_place(explanation.box, size, image.size, places)
        places.append(place)
        fill, ink = _colour(explanation), INK
        if _dropped(explanation):
            fill, ink = INK, fill
        draw.rectangle(place, fill=fill)
        draw.text((place[0] + pad - left, place[1] + pad - top), text, fill=ink, font=font)
    return image


def _dropped(explanation: Explanation) -> bool:
    """The detector did not report this box ("reported as box 3" is a candidate that it did)."""
    return not explanation.outcome.startswith(REPORTED)


def caption(explanation: Explanation, boxes: int = 1) -> str:
    """The label of one of so many boxes: category, score, and why it was dropped if it was."""
    if explanation.together:
        return f"{len(explanation.together)} boxes together"
    text = f"{explanation.category} {shown_score(explanation.score)}"
    if explanation.outcome == REPORTED or boxes > MOST_REASONS:
        return text
    why = explanation.outcome if boxes == 1 else explanation.outcome.partition(" (")[0]
    return f"{text}: {why}"


def _dashed(draw: ImageDraw.ImageDraw, edges: Rectangle, colour: str, stroke: int) -> None:
    x1, y1, x2, y2 = edges
    dash, step = 4 * stroke, 7 * stroke
    for start in np.arange(x1, x2, step):
        end = min(start + dash, x2)
        draw.rectangle((start, y1, end, min(y1 + stroke - 1, y2)), fill=colour)
        draw.rectangle((start, max(y2 - stroke + 1, y1), end, y2), fill=colour)
    for start in np.arange(y1, y2, step):
        end = min(start + dash, y2)
        draw.rectangle((x1, start, min(x1 + stroke - 1, x2), end), fill=colour)
        draw.rectangle((max(x2 - stroke + 1, x1), start, x2, end), fill=colour)


def _note(image: Image.Image, text: str) -> None:
    """Words in the lower left corner."""
    draw, font = ImageDraw.Draw(image), _font(image)
    text = wrapped(text, image.width, font)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    height = image.height - (bottom - top) - 6
    draw.rectangle((0, height, right - left + 6, image.height), fill=INK)
    draw.text((3 - left, height + 3 - top), text, fill=TOGETHER, font=font)


def _font(image: Image.Image) -> Font:
    return ImageFont.load_default(max(10, round(min(image.size) / 30)))


def _colour(explanation: Explanation) -> str:
    return TOGETHER if explanation.together else BOXES[(explanation.label - 1) % len(BOXES)]


def _free_place(
    box: Rectangle, size: tuple[float, float], image: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Where a label of `size` goes: at the first of the box's corners that is free,
    off the box if there is such a place."""
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
    beside = [place for place in free if not _meet(place, box)]
    return (beside or free or places)[0]


def _meet(one: Rectangle, other: Rectangle) -> bool:
    across = one[0] < other[2] and other[0] < one[2]
    return across and one[1] < other[3] and other[1] < one[3]

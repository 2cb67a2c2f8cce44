"""Pictures in rows and columns, under headings that may be long."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (22, 24, 29)
INK = "#e6e8ec"
GAP = 8
# Headings need some width, however small the pictures are.
NARROWEST = 120

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Block:
    """One table of pictures: a title over it, a name for each column and each row.

    cells: rows of pictures, as many in each as there are columns. title and rows: "" for none.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[str]
    cells: Sequence[Sequence[Image.Image]]


def draw_grid(blocks: Sequence[Block]) -> Image.Image:
    """The blocks below each other, all columns of all of them equally wide."""
    cells = [image for block in blocks for row in block.cells for image in row]
    widest = max([NARROWEST, *(image.width for image in cells)])
    font = ImageFont.load_default(max(12, widest // 22))
    names = [name for block in blocks for name in block.rows if name]
    aside = max((round(font.getlength(name)) + GAP for name in names), default=0)
    strips = [strip for block in blocks for strip in _strips(block, widest, aside, font)]
    columns = max(len(block.columns) for block in blocks)
    width = max([GAP + aside + columns * (widest + GAP), *(each.width for each in strips)])
    sheet = Image.new("RGB", (width, GAP + sum(each.height + GAP for each in strips)), BACKGROUND)
    top = GAP
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height + GAP
    return sheet


def wrapped(text: str, width: float, font: Font) -> str:
    """The text with line breaks, after spaces, dots and pluses if it can be, so that no line is
    wider than `width` pixels."""
    lines = [""]
    for word in re.findall(r"[^ .+]*[ .+]?", text):
        if font.getlength((lines[-1] + word).rstrip()) <= width:
            lines[-1] += word
            continue
        lines.append("")
        for letter in word:
            if lines[-1] and font.getlength((lines[-1] + letter).rstrip()) > width:
                lines.append("")
            lines[-1] += letter
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _strips(block: Block, widest: int, aside: int, font: Font) -> list[Image.Image]:
    """The block's title, its headings and its rows of pictures, each as wide as it needs."""
    lefts = [GAP + aside + place * (widest + GAP) for place in range(len(block.columns))]
    strips = []
    if block.title:
        strips.append(_texts([block.title], [GAP], font))
    headings = [wrapped(name, widest, font) for name in block.columns]
    if any(headings):
        strips.append(_texts(headings, lefts, font))
    for name, row in zip(block.rows, block.cells, strict=True):
        height = max(image.height for image in row)
        strip = Image.new("RGB", (lefts[-1] + widest, height), BACKGROUND)
        if name:
            where = (GAP, height // 2)
            ImageDraw.Draw(strip).text(where, name, fill=INK, font=font, anchor="lm")
        for left, image in zip(lefts, row, strict=True):
            strip.paste(image, (left + (widest - image.width) // 2, (height - image.height) // 2))
        strips.append(strip)
    return strips


def _texts(texts: Sequence[str], lefts: Sequence[int], font: Font) -> Image.Image:
    """Texts beside each other, their last lines level."""
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    # All of one line are equally high, whether or not their letters reach up and down.
    sizes = [draw.textbbox((0, 0), re.sub(r"[^\n]+", "Ag", text), font=font) for text in texts]
    heights = [round(size[3]) for size in sizes]
    ends = [
        left + round(draw.textbbox((0, 0), text, font=font)[2])
        for text, left in zip(texts, lefts, strict=True)
    ]
    strip = Image.new("RGB", (max(ends) + GAP, max(heights) + 2), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for text, left, height in zip(texts, lefts, heights, strict=True):
        draw.text((left, max(heights) - height), text, fill=INK, font=font)
    return strip

"""A look at pictures drawn at random: the true boxes, the heatmap, and the boxes made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from handlers.grid import BACKGROUND, GAP, INK, Block, draw_grid, wrapped
from handlers.outcome import shown_score
from handlers.render import overlay, resized
from handlers.schema import Explanation

if TYPE_CHECKING:
    from torch import Tensor

PICTURES, COLUMNS, CELL = 10, 5, 280  # pixels, a picture's longer side
TRUE, MADE, EDGE = "#5af2a0", "#ffffff", "#101216"
# No part of the picture: what is drawn here does not show.
NOWHERE = (-9.0, -9.0, -9.0, -9.0)


@dataclass(frozen=True)
class Shown:
    """One picture of the sheet.

    picture: uint8 [3, H, W]. truth: float64 [N, 4], the true boxes of the map's category. boxes:
    float64 [K, 4], made of the map. overlap: of any of them with any true one, the best.
    """

    picture: Tensor
    category: str
    explanation: Explanation
    truth: NDArray[np.float64]
    boxes: NDArray[np.float64]
    overlap: float


def draw_sheet(shown: Sequence[Shown], threshold: float) -> Image.Image:
    """Rows of COLUMNS pictures below a legend. threshold: the boxes', a share of the maximum."""
    rows = [shown[start : start + COLUMNS] for start in range(0, len(shown), COLUMNS)]
    grid = draw_grid(
        [
            Block(
                title="",
                columns=[
                    f"{each.category} {shown_score(each.explanation.score)}, IoU {each.overlap:.2f}"
                    for each in row
                ],
                rows=[""],
                cells=[[_drawn(each) for each in row]],
            )
            for row in rows
        ]
    )
    legend = _legend(grid.width, f"of the map, at {threshold:g} of its maximum")
    sheet = Image.new("RGB", (grid.width, legend.height + grid.height), BACKGROUND)
    sheet.paste(legend, (0, 0))
    sheet.paste(grid, (0, legend.height))
    return sheet


def _drawn(shown: Shown) -> Image.Image:
    # The explanation's own box, of a classifier all that the network saw, is not what is shown.
    without = replace(shown.explanation, box=NOWHERE)
    small, moved = resized(shown.picture, [without], CELL)
    image = overlay(small, moved[0], CELL, labels=False)
    height, width = shown.picture.shape[1:]
    scale = np.tile([image.width / width, image.height / height], 2)
    draw = ImageDraw.Draw(image)
    outlines = [
        ((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), colour)
        for boxes, colour in ((shown.truth, TRUE), (shown.boxes, MADE))
        for x1, y1, x2, y2 in (boxes * scale).tolist()
    ]
    # A dark line beside each, and none across another.
    for edges, _ in outlines:
        draw.rectangle(edges, outline=EDGE, width=3)
    for edges, colour in outlines:
        draw.rectangle(edges, outline=colour, width=2)
    return image


def _legend(width: int, text: str) -> Image.Image:
    font = ImageFont.load_default(14)
    swatch, left = 14, GAP
    entries = ((TRUE, "true box"), (MADE, wrapped(f"box {text}", width, font)))
    strip = Image.new("RGB", (width, swatch + 2 * GAP), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for colour, name in entries:
        draw.rectangle((left, GAP, left + swatch, GAP + swatch), outline=colour, width=2)
        left += swatch + GAP
        draw.text((left, GAP + swatch / 2), name, fill=INK, font=font, anchor="lm")
        left += round(font.getlength(name)) + 3 * GAP
    return strip

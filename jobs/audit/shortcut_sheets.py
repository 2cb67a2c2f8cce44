"""Sheets of examples: a detection with what it depends on, without that, and its heatmap."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw

from archives.errors import shortened
from handlers.grid import Block, draw_grid
from handlers.outcome import shown_score
from handlers.render import blend, draw_boxes, resized
from handlers.schema import ExplainRequest, Explanation
from jobs.audit.evidence import GREY, neighbour_region, region
from jobs.audit.fills import filled
from jobs.audit.places import HALF, NEIGHBOUR, SURROUNDINGS, Evidence, Place
from jobs.audit.regions import MARGIN, Mask, inside
from jobs.audit.shortcut_report import reason
from jobs.audit.shortcuts import Pair, ascribed
from jobs.evaluation.measure import explained, with_map
from jobs.evaluation.subjects import MeasureOptions, chosen_boxes
from jobs.names import file_name

if TYPE_CHECKING:
    from torch import Tensor

    from handlers.explainer import Explainer

CELL = 300  # pixels, the longer side of a small picture
EDGE, BOX = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class SheetOptions:
    """score_threshold: of the detections that were asked. request: of the heatmaps. examples: at
    most so many on a sheet."""

    score_threshold: float
    request: ExplainRequest
    examples: int


def sheets(
    explainer: Explainer,
    pictures: Callable[[str], Tensor],
    evidence: Sequence[Evidence],
    told: Sequence[Pair],
    how: SheetOptions,
) -> Iterator[tuple[str, Image.Image]]:
    """For each flagged pair a file's name without its ending, and its sheet: detections of
    different pictures, those that lose most first.

    pictures: uint8 [3, H, W] by the key that evidence has.
    """
    places = ascribed(evidence)
    for pair in told:
        if not pair.flagged:
            continue
        own = [
            each
            for each in evidence
            if each.category == pair.category and places.get((each.key, each.index)) == pair.place
        ]
        own.sort(key=lambda each: each.kept.get(pair.place, each.alone))
        worst = {each.key: each for each in reversed(own)}
        shown = sorted(worst.values(), key=own.index)[: how.examples]
        sheet = draw_grid(
            [_example(explainer, pictures(each.key), each, pair.place, how) for each in shown]
        )
        yield sheet_name(pair), sheet


def sheet_name(pair: Pair) -> str:
    """The name of a pair's sheet, without its ending."""
    return file_name(f"{pair.category}, {pair.place}".replace(":", "").replace(" ", "-"))


def _example(
    explainer: Explainer, picture: Tensor, each: Evidence, place: Place, how: SheetOptions
) -> Block:
    every = MeasureOptions(score_threshold=how.score_threshold, per_picture=sys.maxsize)
    boxes = chosen_boxes(explainer, picture, every).boxes
    own = [box for box in boxes if box.index == each.index]
    hidden = _hidden(each, place, boxes)
    if place.kind == SURROUNDINGS and each.alone >= HALF:  # the object can go
        hidden = inside(each.box, each.height, each.width)
    gone = without(picture, hidden, each)
    (heat,) = explained(explainer, how.request)(picture, own)
    cells = [
        _outlined(picture, each, hidden, own),
        _outlined(gone, each, hidden),
        _heat(picture, heat),
    ]
    titles = [
        f"{each.category} {shown_score(each.score)}, and what is taken away",
        reason(each, place),
        f"{how.request.method} on {how.request.layer}",
    ]
    return Block(shortened(each.key), titles, [""], [cells])


def without(picture: Tensor, hidden: Mask, each: Evidence) -> Tensor:
    """The picture without a region: uint8 [3, H, W]. Where all but the box is taken away the rest
    is grey, as one of the grounds that the detector saw."""
    mask = torch.from_numpy(hidden)
    own = inside(each.box, each.height, each.width, MARGIN)
    if np.array_equal(hidden, ~own):
        return torch.where(mask, torch.full_like(picture, GREY), picture)
    return filled(picture, mask)


def _hidden(each: Evidence, place: Place, boxes: Sequence[Explanation]) -> Mask:
    edges = [box.box for box in boxes]
    if place.kind == NEIGHBOUR and each.neighbour is not None:
        number = [box.index for box in boxes].index(each.neighbour)
        return neighbour_region(number, edges, each.height, each.width)
    return region(place, each.box, edges, each.height, each.width)


def _outlined(
    picture: Tensor, each: Evidence, hidden: Mask, labelled: Sequence[Explanation] = ()
) -> Image.Image:
    """The picture with the box, and a frame around what is taken away."""
    small, moved = resized(picture, labelled, CELL)
    image = draw_boxes(small, moved, CELL)
    factor = small.shape[2] / picture.shape[2]
    rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
    frames = [] if labelled else [(each.box, BOX)]
    if len(rows):
        frames.append(((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), EDGE))
    for edges, colour in frames:
        left, top, right, bottom = (round(float(edge) * factor) for edge in edges)
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)
    return image


def _heat(picture: Tensor, heat: Explanation) -> Image.Image:
    small, (moved,) = resized(picture, [with_map(picture, heat, heat.on_picture())], CELL)
    values = moved.on_picture()
    image = blend(small, values / values.max().clamp(min=1e-12), 0.5)
    ImageDraw.Draw(image).rectangle(moved.box, outline=EDGE, width=2)
    return image

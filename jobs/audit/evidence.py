"""Does a detection stand without what lies outside its box, and fall with which part of that?

Two questions are put to every detection, by running the detector on changed pictures:
    alone       all but its box is taken away. What is left of its score?
    exchanged   an object of another category takes its place. What is left of its score?
One that falls alone, or stays though the object is another, has evidence outside its box. Of those
each region is taken away by itself: strips beside the box, cells of the frame, other detections'
boxes.

All runs share `jobs.evaluation.tracking.reported`, so every detector that an adapter fits can be
asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torchvision.ops import box_iou

from handlers.explainer import Explainer
from handlers.metrics.faithfulness import similarities
from handlers.schema import Explanation
from jobs.audit.fills import exchanged, filled, resized
from jobs.audit.places import BESIDE, NEIGHBOUR, REGIONS, SPOT, Evidence, Place
from jobs.audit.regions import MARGIN, Box, Mask, beside, cell, inside, outside_all
from jobs.evaluation.tracking import BoxesAndClasses, reported

GREY = 128
# Objects that are put into a detection's place, each of another category.
EXCHANGES = 2
# Donors kept of each category, and empty pictures.
DONORS, EMPTY = 4, 4
LEAST_SIDE = 12  # pixels, of a donor
# Of each colour, in a region's look.
LOOK_LEVELS = 4
# A box that overlaps a detection's by more than this has taken its place.
SAME_PLACE = 0.5


@dataclass
class Donors:
    """What other pictures lend: objects by their label (uint8 [3, h, w], a box's content), and
    pictures without the detections (uint8 [3, H, W]); each with the name of its picture."""

    objects: dict[int, list[tuple[str, Tensor]]] = field(default_factory=dict)
    empty: list[tuple[str, Tensor]] = field(default_factory=list)

    def add(self, name: str, picture: Tensor, boxes: Sequence[Explanation]) -> None:
        """Takes what is wanted of a picture, uint8 [3, H, W]."""
        height, width = picture.shape[1:]
        for each in boxes:
            own = self.objects.setdefault(each.label, [])
            x1, y1, x2, y2 = (round(edge) for edge in each.box)
            content = picture[:, max(0, y1) : y2, max(0, x1) : x2]
            # One of a picture, so that they are not all of one look.
            lent = any(place == name for place, _ in own)
            if len(own) < DONORS and not lent and min(content.shape[1:]) >= LEAST_SIDE:
                own.append((name, content.clone()))
        if len(self.empty) < EMPTY:
            hidden = ~outside_all([each.box for each in boxes], height, width)
            self.empty.append((name, filled(picture, torch.from_numpy(hidden))))

    def others(self, name: str, label: int, turn: int) -> list[Tensor]:
        """Up to EXCHANGES objects of other pictures, each of another category than `label`;
        turn: any number, which decides which."""
        labels = sorted(each for each in self.objects if each != label)
        found = []
        for place in range(len(labels)):
            own = self.objects[labels[(place + turn) % len(labels)]]
            lent = [content for other, content in own if other != name]
            if lent:
                found.append(lent[turn % len(lent)])
        return found[:EXCHANGES]

    def background(self, name: str, turn: int) -> Tensor | None:
        """A picture without its detections, not this one's."""
        lent = [picture for other, picture in self.empty if other != name]
        return lent[turn % len(lent)] if lent else None


def region(place: Place, box: Box, boxes: Sequence[Box], height: int, width: int) -> Mask:
    """The pixels [H, W] that are taken away for a place, but a neighbour's: those of no other box,
    where the place is a cell of the frame.

    box: the detection's. boxes: all of the picture's.
    """
    if place.kind == BESIDE:
        return beside(box, place.name, height, width)
    if place.kind == SPOT:
        return cell(place.name, height, width) & outside_all(boxes, height, width)
    return ~inside(box, height, width, MARGIN)


def neighbour_region(place: int, boxes: Sequence[Box], height: int, width: int) -> Mask:
    """The pixels [H, W] of one of the boxes that are of no other."""
    others = [each for other, each in enumerate(boxes) if other != place]
    return inside(boxes[place], height, width, MARGIN) & outside_all(others, height, width)


def evidence_of(
    explainer: Explainer,
    key: str,
    picture: Tensor,
    boxes: Sequence[Explanation],
    donors: Donors,
    batch_size: int = 8,
    chosen: Sequence[int] | None = None,
) -> list[Evidence]:
    """Where the evidence of each detection lies, in their order.

    It costs two to four runs of the detector a detection, and where one has evidence outside its
    box as many more as there are strips and neighbours, and cells of the frame.
    key: the picture's, printable. picture: uint8 [3, H, W]. boxes: its detections, as of
    `jobs.evaluation.subjects.chosen_boxes`. chosen: the places of those that are asked; None for
    all.
    """
    asked = _Asked(explainer, picture, boxes, batch_size)
    own = [boxes[place] for place in (range(len(boxes)) if chosen is None else chosen)]
    alone = asked.shares(own, [_alone(each, key, picture, donors) for each in own])
    other = asked.shares(own, [_exchanged(each, key, picture, donors) for each in own])
    found = [
        Evidence(
            key,
            each.index,
            each.box,
            each.category,
            each.score,
            picture.shape[1],
            picture.shape[2],
            max(alone[place]),
            min(other[place], default=math.nan),
        )
        for place, each in enumerate(own)
    ]
    if not any(each.outside for each in found):
        return found
    cells = asked.cells()
    neighbours = asked.neighbours()
    return [
        asked.located(each, box, cells, neighbours) if each.outside else each
        for each, box in zip(found, own, strict=True)
    ]


def _alone(each: Explanation, key: str, picture: Tensor, donors: Donors) -> list[Tensor]:
    """The picture with the box alone, on grey and on another picture's background."""
    height, width = picture.shape[1:]
    own = torch.from_numpy(inside(each.box, height, width, MARGIN))
    around = [torch.full_like(picture, GREY)]
    lent = donors.background(key, each.index)
    if lent is not None:
        # Turned round, since what all pictures have at one spot is what may be looked for.
        around.append(resized(lent, height, width).flip(1, 2))
    return [torch.where(own, picture, ground) for ground in around]


def _exchanged(each: Explanation, key: str, picture: Tensor, donors: Donors) -> list[Tensor]:
    """The picture with objects of other categories in the box, one at a time."""
    others = donors.others(key, each.label, each.index)
    return [exchanged(picture, each.box, other) for other in others]


def look(picture: Tensor, hidden: Tensor) -> tuple[float, ...]:
    """What a region looks like: the shares of LOOK_LEVELS ** 3 colours, each pixel counted by how
    much it differs from what fills it, so that a mark counts and the ground around it does not.

    picture: uint8 [3, H, W]. hidden: bool [H, W].
    """
    gap = (picture.float() - filled(picture, hidden).float()).abs().amax(0)[hidden]
    levels = picture[:, hidden].long() * LOOK_LEVELS // 256
    colours = (levels[0] * LOOK_LEVELS + levels[1]) * LOOK_LEVELS + levels[2]
    counts = torch.bincount(colours, gap + 1e-3, LOOK_LEVELS**3)
    return tuple((counts / counts.sum().clamp(min=1e-9)).tolist())


@dataclass
class _Asked:
    """A picture and the detections that are asked."""

    explainer: Explainer
    picture: Tensor
    boxes: Sequence[Explanation]
    batch_size: int

    def found(self, pictures: Sequence[Tensor]) -> list[BoxesAndClasses]:
        return list(reported(self.explainer, pictures, self.batch_size)) if pictures else []

    def shares(
        self, boxes: Sequence[Explanation], pictures: Sequence[Sequence[Tensor]]
    ) -> list[list[float]]:
        """What is left of each detection's score in each of its own pictures."""
        found = iter(self.found([each for own in pictures for each in own]))
        return [
            [_share(box, *next(found)) for _ in own]
            for box, own in zip(boxes, pictures, strict=True)
        ]

    def cells(self) -> dict[Place, BoxesAndClasses | None]:
        """What is found without each cell of the frame; None where it holds boxes alone."""
        places = [place for place in REGIONS if place.kind == SPOT]
        return dict(zip(places, self._without([self._mask(each) for each in places]), strict=True))

    def neighbours(self) -> list[BoxesAndClasses | None]:
        """What is found without each of the boxes."""
        edges, size = [each.box for each in self.boxes], self.picture.shape[1:]
        return self._without([neighbour_region(place, edges, *size) for place in range(len(edges))])

    def located(
        self,
        evidence: Evidence,
        box: Explanation,
        cells: Mapping[Place, BoxesAndClasses | None],
        neighbours: Sequence[BoxesAndClasses | None],
    ) -> Evidence:
        """The evidence with what the removal of each region leaves of it."""
        strips = [place for place in REGIONS if place.kind == BESIDE]
        masks = [self._mask(place, box) for place in strips]
        found = {**dict(zip(strips, self._without(masks), strict=True)), **cells}
        others = [
            (_share(box, *result) if result else 1.0, place)
            for place, result in enumerate(neighbours)
            if self.boxes[place] is not box
        ]
        neighbour = min(others)[1] if others else None
        if neighbour is not None:
            found[Place(NEIGHBOUR)] = neighbours[neighbour]
        located = replace(
            evidence,
            kept={place: _share(box, *each) if each else 1.0 for place, each in found.items()},
            instead={
                place: self._stands_there(box, *each) if each else box.category
                for place, each in found.items()
            },
            neighbour=None if neighbour is None else self.boxes[neighbour].index,
        )
        looks = {place: self._look_of(place, box, neighbour) for place in located.places}
        return replace(located, looks=looks)

    def _look_of(self, place: Place, box: Explanation, neighbour: int | None) -> tuple[float, ...]:
        if place.kind == NEIGHBOUR and neighbour is not None:
            edges = [each.box for each in self.boxes]
            mask = neighbour_region(neighbour, edges, *self.picture.shape[1:])
        else:
            mask = self._mask(place, box)
        return look(self.picture, torch.from_numpy(mask))

    def _mask(self, place: Place, box: Explanation | None = None) -> Mask:
        own = box.box if box else (0.0, 0.0, 0.0, 0.0)
        return region(place, own, [each.box for each in self.boxes], *self.picture.shape[1:])

    def _without(self, masks: Sequence[Mask]) -> list[BoxesAndClasses | None]:
        """What is found without what each mask hides; None where it hides nothing."""
        pictures = [filled(self.picture, torch.from_numpy(mask)) for mask in masks if mask.any()]
        found = iter(self.found(pictures))
        return [next(found) if mask.any() else None for mask in masks]

    def _stands_there(self, box: Explanation, boxes: Tensor, classes: Tensor) -> str:
        """The surest category in a detection's place, "" for none."""
        if not len(boxes):
            return ""
        there = box_iou(torch.tensor([box.box]), boxes)[0] > SAME_PLACE
        best, label = (classes * there[:, None]).max(0).values.max(0)
        return self.explainer.categories[int(label)] if best > 0 else ""


def _share(each: Explanation, boxes: Tensor, classes: Tensor) -> float:
    """What is left of a detection's score: the most that a box says of its category, times how well
    it overlaps."""
    nothing = classes.new_zeros(classes.shape[1])
    _, left = similarities(torch.tensor(each.box), each.label, nothing, boxes, classes)
    return float(left) / each.score

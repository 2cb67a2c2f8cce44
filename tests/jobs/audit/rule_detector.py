"""A detector whose scores are known functions of a picture's pixels, for tests of the audit.

It draws three boxes on pictures of 90 x 120 px, whatever is in them: a cat, which is asked about,
a dog to its right, and a bird below the dog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from handlers.images import Geometry
from handlers.schema import Explanation
from jobs.audit.evidence import Donors
from jobs.evaluation.tracking import BoxesAndClasses

CATEGORIES = ("background", "cat", "dog", "bird")
HEIGHT, WIDTH = 90, 120
CAT, DOG, BIRD = (34.0, 32.0, 54.0, 52.0), (86.0, 34.0, 102.0, 50.0), (86.0, 64.0, 102.0, 80.0)
BOXES = (CAT, DOG, BIRD)
SCORES = (0.9, 0.8, 0.7)
WHITE, GROUND, DARK = 250, 60, 20
COLOURS = (110, 150, 190)  # of the cat, the dog and the bird

# What a picture says of the cat: 0 ... 1.
Rule = Callable[[Tensor], float]


class Stub:
    """The part of an Explainer that the audit uses, but for the detector itself."""

    categories = CATEGORIES


def picture(*white: tuple[int, int, int, int], ground: int = GROUND) -> Tensor:
    """uint8 [3, HEIGHT, WIDTH]: the three, and white in rectangles x1, y1, x2, y2."""
    found = torch.full((3, HEIGHT, WIDTH), ground, dtype=torch.uint8)
    for (x1, y1, x2, y2), colour in zip(BOXES, COLOURS, strict=True):
        found[:, int(y1) : int(y2), int(x1) : int(x2)] = colour
    for x1, y1, x2, y2 in white:
        found[:, y1:y2, x1:x2] = WHITE
    return found


def itself(index: int) -> Rule:
    """The share of one's own box that has its own colour."""
    x1, y1, x2, y2 = (round(edge) for edge in BOXES[index])

    def share(pixels: Tensor) -> float:
        gap = (pixels[0, y1:y2, x1:x2].float() - COLOURS[index]).abs()
        return float((gap < 10).float().mean())

    return share


def white_at(x1: int, y1: int, x2: int, y2: int) -> Rule:
    """The share of a rectangle that is white."""
    return lambda pixels: float((pixels[0, y1:y2, x1:x2] > 200).float().mean())


def detections(scores: Sequence[float] = SCORES) -> list[Explanation]:
    """The three, without maps."""
    return [
        Explanation(
            index=index,
            box=box,
            label=index + 1,
            category=CATEGORIES[index + 1],
            score=score,
            method="",
            target="",
            layer="",
            level="",
            heatmap=torch.zeros(1, 1),
            geometry=Geometry(1, 1, 1.0, 1.0, 1.0, 1.0),
        )
        for index, (box, score) in enumerate(zip(BOXES, scores, strict=True))
    ]


def donors() -> Donors:
    """Dark dogs and birds of other pictures, and a dark empty one."""
    dark = torch.full((3, 20, 20), DARK, dtype=torch.uint8)
    empty = torch.full((3, 40, 50), DARK, dtype=torch.uint8)
    return Donors({2: [("x", dark)], 3: [("y", dark)]}, [("x", empty)])


class RuleDetector:
    """Stands for `jobs.evaluation.tracking.reported`: the cat's class has the rule's share of its
    score, the rest of which goes to the bird; the others are known by themselves.
    looked: pictures so far."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.looked = rule, 0

    def __call__(
        self, explainer: Any, pictures: Sequence[Tensor], batch_size: int
    ) -> Iterator[BoxesAndClasses]:
        for each in pictures:
            self.looked += 1
            share = self.rule(each)
            classes = torch.zeros(3, len(CATEGORIES))
            classes[0, 1], classes[0, 3] = SCORES[0] * share, SCORES[0] * (1 - share)
            for row in (1, 2):
                classes[row, row + 1] = SCORES[row] * itself(row)(each)
            yield torch.tensor(BOXES), classes

"""Where the evidence for a detection lies: the places outside its box, and what their removal
leaves of its score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from jobs.audit.regions import CELLS, SIDES, Box

# What a detection keeps at most if it depends on what was taken away.
HALF = 0.5
BESIDE, SPOT, NEIGHBOUR, SURROUNDINGS = "beside", "spot", "neighbour", "surroundings"


@dataclass(frozen=True)
class Place:
    """kind: BESIDE (a strip along one side of the box), SPOT (a cell of the frame), NEIGHBOUR
    (other detections' boxes) or SURROUNDINGS (all of the rest together, and no part of it alone).
    name: which strip or cell; "" for the other two."""

    kind: str
    name: str = ""

    @property
    def column(self) -> str:
        """Its column in evidence.parquet."""
        return "_".join(("kept", self.kind, *self.name.split()))

    def __str__(self) -> str:
        texts = {
            BESIDE: f"beside the box: {self.name}",
            SPOT: f"spot of the frame: {self.name}",
            NEIGHBOUR: "a neighbour's box",
            SURROUNDINGS: "the surroundings as a whole",
        }
        return texts[self.kind]


# Those whose removal is tried by itself.
REGIONS = (
    *(Place(BESIDE, side) for side in SIDES),
    *(Place(SPOT, cell) for cell in CELLS),
    Place(NEIGHBOUR),
)
PLACES = (*REGIONS, Place(SURROUNDINGS))


@dataclass(frozen=True)
class Evidence:
    """Where a detection's evidence lies, as far as removal tells.

    key, index, box, category, score: the detection's, as in detections.parquet.
    height, width: the picture's.
    alone: the share of its score that is left with its box alone, 0 ... 1 or a little more; the
        most of several things put around it.
    exchanged: the share that is left with another object in its place; the least of several. Not a
        number where there was none to put there.
    kept: by region the share that is left without that; none where the evidence lies in the box.
    instead: by region what stands there without it: a category, or "" for nothing.
    neighbour: the place of the other detection that it depends on most; None where there is none.
    looks: what the regions that it depends on look like, as `jobs.audit.evidence.look` has it.
    """

    key: str
    index: int
    box: Box
    category: str
    score: float
    height: int
    width: int
    alone: float
    exchanged: float
    kept: Mapping[Place, float] = field(default_factory=dict)
    instead: Mapping[Place, str] = field(default_factory=dict)
    neighbour: int | None = None
    looks: Mapping[Place, tuple[float, ...]] = field(default_factory=dict)

    @property
    def outside(self) -> bool:
        """It has evidence outside its box."""
        return self.alone < HALF or self.exchanged >= HALF

    @property
    def places(self) -> tuple[Place, ...]:
        """The places that it depends on; none for one whose evidence lies in its box.

        On a region where without it no more than HALF of the score is left, and HALF of the score
        more goes than with the other regions, whose median is the control. On its surroundings as a
        whole where it depends on no region.
        """
        if not self.outside:
            return ()
        found = []
        for place, left in self.kept.items():
            others = [other for name, other in self.kept.items() if name != place]
            control = min(1.0, median(others)) if others else 1.0
            if left <= HALF and control - left >= HALF:
                found.append(place)
        return tuple(found) or (Place(SURROUNDINGS),)

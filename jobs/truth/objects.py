"""What is really there in one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Objects:
    """The true objects of one picture.

    boxes: float64 [N, 4], x1, y1, x2, y2 in pixels of the picture, (0, 0) its upper left corner.
        Boxes may have no area.
    categories: N names.
    difficult: bool [N]; VOC's "difficult", which count neither way.
    crowd: bool [N]; COCO's "iscrowd", which count neither way.
    masks: N of bool [H, W], of the picture's size, or None where an object has none.
    areas: float64 [N], square pixels as the annotations tell them, not a number where they do not;
        None where none are told.
    """

    boxes: NDArray[np.float64]
    categories: tuple[str, ...]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    masks: tuple[NDArray[np.bool_] | None, ...]
    areas: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        number = len(self.categories)
        shapes = {
            "boxes": (self.boxes.shape, (number, 4)),
            "difficult": (self.difficult.shape, (number,)),
            "crowd": (self.crowd.shape, (number,)),
            "masks": ((len(self.masks),), (number,)),
            "areas": (None if self.areas is None else self.areas.shape, (number,)),
        }
        for name, (got, expected) in shapes.items():
            if got is not None and got != expected:
                raise ValueError(f"{name}: got {got}; expected {expected}, as of {number} objects")

    def only(self, keep: NDArray[np.bool_]) -> Objects:
        """Those of them where keep, bool [N], says so."""
        places = np.flatnonzero(keep)
        return Objects(
            self.boxes[places],
            tuple(self.categories[place] for place in places),
            self.difficult[places],
            self.crowd[places],
            tuple(self.masks[place] for place in places),
            None if self.areas is None else self.areas[places],
        )

    def __len__(self) -> int:
        return len(self.categories)


class Truth(Protocol):
    """The true objects of many pictures.

    form: one of jobs.truth.reading.FORMS. categories: names, in the order of the annotations' own
    numbers where they have some.
    """

    form: str
    categories: tuple[str, ...]

    def fingerprint(self) -> str:
        """Changes when any annotation does, as a listing's of pictures: files are compared by
        their keys, sizes and tags."""
        ...

    def objects(self, key: str) -> Objects | None:
        """Those of a picture, by its key as a run's rows have it; None where nobody annotated it.

        Raises UsageError, naming the file, for annotations that are none.
        """
        ...

"""How a head is built and what a target needs of it: found out once, not once a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from handlers.detectors.base import Cells, Detector
from handlers.evidence.scene import Question
from handlers.evidence.towers import Tower, Uses, towers_of, uses_of


@dataclass(frozen=True)
class Structure:
    """The towers of a level's head, and what a target's scalars need of them."""

    towers: tuple[Tower, ...]
    uses: Uses


Known = dict[tuple[str, int], Structure]
# By target and level. A detector takes what is known of it along.
_KNOWN: WeakKeyDictionary[Detector, Known] = WeakKeyDictionary()


def structures(question: Question, part: Cells) -> Iterator[tuple[int, Structure | None]]:
    """Every level that emitted some of the detections, and None where its head is not made of
    chains of known modules. What is known of a head that was changed since is found to be wrong
    when the head's outputs are checked, and is to be forgotten then."""
    known = _known(question)
    uses: Uses | None = None
    for level in part.level.unique().tolist():
        structure = known.get((question.target, level))
        if structure is None and (towers := towers_of(question, part, level)):
            # Levels are alike in what the scalars depend on.
            if uses is None or len(uses.scalars) != len(towers):
                uses = uses_of(question, part, level, towers)
            structure = Structure(tuple(towers), uses)
            known[question.target, level] = structure
        yield level, structure


def forget(question: Question, level: int) -> None:
    """What is known of a level's head for the question's target."""
    _known(question).pop((question.target, level), None)


def _known(question: Question) -> Known:
    """What may be kept: a function, and the layer of one question, say nothing about the next."""
    if not question.target or question.layer is not None:
        return {}
    return _KNOWN.setdefault(question.scene.detector, {})

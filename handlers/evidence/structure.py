"""What a target needs of a head's towers: found out once, not once a picture."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

from torch import nn

from handlers.detectors.base import Cells
from handlers.evidence.scene import Question
from handlers.evidence.towers import Tower, Uses, towers_of, uses_of

# By target and level: what was found out, and of which towers.
Known = dict[tuple[str, int], tuple[list[Tower], Uses]]
# A model takes what is known of it along.
_KNOWN: WeakKeyDictionary[nn.Module, Known] = WeakKeyDictionary()


def structures(question: Question, part: Cells) -> Iterator[tuple[int, list[Tower], Uses | None]]:
    """Of every level that emitted some of the detections its head's towers, and what the question's
    scalars need of them; none and None where it is not made of chains of known modules. What is
    known counts for the very same modules only."""
    known = _known(question)
    uses: Uses | None = None
    for level in part.level.unique().tolist():
        towers = towers_of(question, part, level)
        if not towers:
            yield level, [], None
            continue
        kept = known.get((question.target, level))
        if kept is not None and kept[0] == towers:
            uses = kept[1]
        # Levels are alike in what the scalars depend on.
        elif uses is None or len(uses.scalars) != len(towers):
            uses = uses_of(question, part, level, towers)
        known[question.target, level] = towers, uses
        yield level, towers, uses


def forget(question: Question) -> None:
    """What is known of a head that turned out to be built otherwise."""
    _known(question).clear()


def _known(question: Question) -> Known:
    """What may be kept: a function, and the layer of one question, say nothing about the next."""
    if not question.target or question.layer is not None:
        return {}
    return _KNOWN.setdefault(question.scene.detector.model, {})

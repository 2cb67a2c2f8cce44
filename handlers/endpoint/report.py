"""A request that was answered, and the line that the access log has of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from handlers.endpoint.items import DESCRIBE, Item
from handlers.endpoint.observation import Observation
from handlers.endpoint.writing import Answer


@dataclass(frozen=True)
class Report:
    """item: the request. answer: what it got. pictures: those in it, none of a request of a wrong
    shape. batch: how many requests were answered together. seconds: that took."""

    item: Item
    answer: Answer
    pictures: Sequence[Observation]
    batch: int
    seconds: float

    def entry(self) -> dict[str, Any]:
        """JSON values: who asked for what, and what came of it. Nothing of the picture, no token,
        and of what the client wrote only what was found to be valid."""
        pictures = []
        for each in self.pictures if self.item.verb != DESCRIBE else ():
            values = asdict(each)
            values["seconds"] = {stage: round(spent, 4) for stage, spent in each.seconds.items()}
            pictures.append(values)
        return {
            **asdict(self.item.caller),
            "verb": self.item.verb,
            "status": self.answer.status,
            "reason": self.answer.reason,
            "bytes": len(self.answer.body),
            "batch": self.batch,
            "seconds": round(self.seconds, 4),
            "pictures": pictures,
        }

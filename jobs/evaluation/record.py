"""evaluation.json: what an evaluation measured, picture by picture, so that it can go on.

While it goes on, what is new is saved every few seconds as a part of its own: what is written grows
with the pictures, not with their square. At the end all is one file, and the parts are removed.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from archives.errors import ConflictError, MissingObjectError
from archives.stores.store import Store
from jobs.numbers_in_json import plain
from jobs.scoring.reported import Reported
from jobs.scoring.tables import measured_boxes
from jobs.worker.pictures import Failure

RECORD = "evaluation.json"
PARTS = "evaluation/parts/"
PART = re.compile(re.escape(PARTS) + r"([0-9]+)\.json")
SECONDS_BETWEEN_PARTS = 10.0

Rows = list[dict[str, Any]]


@dataclass
class Found:
    """What was found in pictures.

    pictures: the rows of each one that maps were measured on, by its key. detections: where there
    is a truth, all that was reported in each. failures: by their printable keys.
    """

    pictures: dict[str, Rows] = field(default_factory=dict)
    detections: dict[str, Reported] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    def update(self, more: Found) -> None:
        """Takes more in."""
        self.pictures |= more.pictures
        self.detections |= more.detections
        self.failures |= more.failures

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        detections = {key: each.to_dict() for key, each in self.detections.items()}
        return {
            "pictures": self.pictures,
            **({"detections": detections} if detections else {}),
            "failures": [asdict(each) for each in self.failures.values()],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Found:
        """The inverse of `to_dict`; JSON has null for what is no number."""
        failures = [Failure(**each) for each in values.get("failures", ())]
        return cls(
            {
                key: [
                    {name: math.nan if value is None else value for name, value in row.items()}
                    for row in rows
                ]
                for key, rows in values["pictures"].items()
            },
            {key: Reported.from_dict(each) for key, each in values.get("detections", {}).items()},
            {each.key: each for each in failures},
        )


class EvaluationRecord:
    """An evaluation's record, at work in an output.

    settings: what the figures depend on, as JSON has it. found: in all pictures. boxes: how many
    have rows.
    """

    def __init__(self, output: Store, settings: Mapping[str, Any]) -> None:
        """What an earlier run left there, or a new one. Raises ConflictError for another
        evaluation's, and for a file that is none."""
        self.output = output
        self.settings = settings
        self.found = Found()
        if output.find(RECORD) is not None:
            self.found.update(self._read(RECORD))
        numbers: list[int] = []
        with suppress(MissingObjectError):
            keys = (PART.fullmatch(each.key) for each in output.entries(PARTS))
            numbers = sorted(int(key[1]) for key in keys if key)
        for number in numbers:
            self.found.update(self._read(_part(number)))
        self._parts = numbers
        self.boxes = measured_boxes(self.rows)
        self._new = Found()
        self._saved = time.monotonic()

    @property
    def rows(self) -> Rows:
        """Those of all pictures."""
        return [row for found in self.found.pictures.values() for row in found]

    def measured(self, key: str, rows: Rows, reported: Reported | None) -> None:
        """Takes a picture in: its rows and, where there is a truth, all that was reported."""
        self.boxes += measured_boxes(rows)
        self._take(Found({key: rows}, {} if reported is None else {key: reported}))

    def detected(self, key: str, reported: Reported) -> None:
        """Takes a picture in on which no map was measured."""
        self._take(Found(detections={key: reported}))

    def failed(self, failure: Failure) -> None:
        """Takes a picture in that could not be done."""
        self._take(Found(failures={failure.key: failure}))

    def finish(self, **more: Any) -> None:
        """Writes all as RECORD, with more besides, and removes the parts."""
        self._write(RECORD, self.found, more)
        self._new = Found()
        while self._parts:
            self.output.delete(_part(self._parts.pop()))

    def _take(self, more: Found) -> None:
        self.found.update(more)
        self._new.update(more)
        if time.monotonic() - self._saved < SECONDS_BETWEEN_PARTS:
            return
        number = self._parts[-1] + 1 if self._parts else 0
        self._write(_part(number), self._new, {})
        self._parts.append(number)
        self._new = Found()
        self._saved = time.monotonic()

    def _write(self, name: str, found: Found, more: Mapping[str, Any]) -> None:
        values = {"settings": self.settings, **more, **found.to_dict()}
        text = json.dumps(plain(values), indent=1, allow_nan=False)
        self.output.write(name, text.encode())

    def _read(self, name: str) -> Found:
        address = f"{self.output.uri}/{name}"
        instead = f"give another --output, or remove {RECORD} and evaluation/ there"
        try:
            before = json.loads(self.output.read(name))
            settings = before["settings"]
            differing = [
                each for each in self.settings if settings.get(each) != self.settings[each]
            ]
            found = Found.from_dict(before)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConflictError(
                f"{address} is no evaluation's, or was cut off ({type(error).__name__}); {instead}"
            ) from error
        if differing:
            raise ConflictError(
                f"{address} is another evaluation's: its {', '.join(differing)} differ; {instead}"
            )
        return found


def _part(number: int) -> str:
    return f"{PARTS}{number:05d}.json"

"""evaluation.json: what an evaluation measured, picture by picture, so that it can go on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from archives.errors import ConflictError
from archives.stores.store import Store
from jobs.numbers_in_json import plain
from jobs.scoring.reported import Reported

RECORD = "evaluation.json"


@dataclass
class EvaluationRecord:
    """settings: what the figures depend on, as JSON has it. pictures: the rows of each picture that
    was looked at, by its key. detections: where there is a truth, all that was reported in it."""

    settings: Mapping[str, Any]
    pictures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    detections: dict[str, Reported] = field(default_factory=dict)

    @classmethod
    def resumed(cls, output: Store, settings: Mapping[str, Any]) -> EvaluationRecord:
        """What an earlier run left, or a new one. Raises ConflictError for another evaluation's,
        and for a file that is none."""
        if output.find(RECORD) is None:
            return cls(settings)
        try:
            before = json.loads(output.read(RECORD))
            before["settings"].keys(), before["pictures"].items()
            detections = {
                key: Reported.from_dict(each) for key, each in before.get("detections", {}).items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConflictError(
                f"{output.uri}/{RECORD} is no evaluation's, or was cut off"
                f" ({type(error).__name__}); give another --output, or remove it"
            ) from error
        differing = [name for name in settings if before["settings"].get(name) != settings[name]]
        if differing:
            raise ConflictError(
                f"{output.uri}/{RECORD} is another evaluation's: its {', '.join(differing)}"
                " differ; give another --output, or remove it"
            )
        # JSON has null for what is no number.
        pictures = {
            key: [
                {name: math.nan if value is None else value for name, value in row.items()}
                for row in rows
            ]
            for key, rows in before["pictures"].items()
        }
        return cls(settings, pictures, detections)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those of all pictures."""
        return [row for found in self.pictures.values() for row in found]

    def write(self, output: Store, **more: Any) -> None:
        """Writes RECORD, with more besides."""
        detections = {key: each.to_dict() for key, each in self.detections.items()}
        values = {
            "settings": self.settings,
            **more,
            "pictures": self.pictures,
            **({"detections": detections} if detections else {}),
        }
        output.write(RECORD, json.dumps(plain(values), indent=1, allow_nan=False).encode())

"""What the parent process hands the worker."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.commands.command import by_options
from jobs.commands.registry import COMMANDS
from jobs.options import Options


@dataclass(frozen=True)
class ArchiveFacts:
    """What the verification of the archive, from outside, found."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True)
class WorkOrder:
    """What the parent hands the worker: the options, and the archive verified and unpacked.

    folder: where the archive lies unpacked; private to this run.
    """

    options: Options
    archive: ArchiveFacts
    folder: Path

    def to_json(self) -> str:
        own: Any = self.options
        return json.dumps(
            {
                "options": asdict(own),
                "kind": type(own).__name__,
                "archive": asdict(self.archive),
                "folder": str(self.folder),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> WorkOrder:
        values = json.loads(text)
        _, kind = by_options(COMMANDS)[values["kind"]]
        options = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values["options"].items()
        }
        return cls(
            kind(**options),
            ArchiveFacts(**values["archive"]),
            Path(values["folder"]),
        )

"""What a job was asked to do: one frozen dataclass, passed whole from the command to the worker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OVERLAYS = ("auto", "none", "all", "each")
ENGINES = ("local",)


@dataclass(frozen=True)
class JobOptions:
    """The command line of `jobs explain`.

    archive: a .mar file or its s3:// URI.
    inputs: folders, files or s3:// URIs, at least one.
    output: a folder or an s3:// URI.
    request: the fields of ExplainRequest that were given; the archive's defaults fill the rest.
    batch_size: pictures in one pass through the detector, at least 1.
    shard_size: pictures in one shard, the unit of commit and of retry, at least 1.
    overlays: "none", "all" (one picture with all boxes), "each" (that, the boxes alone, and one
        picture per box), or "auto": "each" for at most 100 local pictures, else "none".
    """

    archive: str
    inputs: tuple[str, ...]
    output: str
    request: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 8
    device: str = "cpu"
    precision: str = "fp32"
    shard_size: int = 256
    overlays: str = "auto"
    engine: str = "local"


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

    options: JobOptions
    archive: ArchiveFacts
    folder: Path

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> WorkOrder:
        values = json.loads(text)
        options = values["options"]
        options["inputs"] = tuple(options["inputs"])
        return cls(JobOptions(**options), ArchiveFacts(**values["archive"]), Path(values["folder"]))

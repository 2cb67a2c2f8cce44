"""What was asked: one frozen dataclass for each command, passed whole to the worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

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
class SweepOptions:
    """The command line of `jobs sweep`.

    archive, input: a file or its s3:// URI each. output: likewise, ending in .png, .jpg or .jpeg.
    layers: names, or patterns of the shell's kind, at least one.
    methods: names, at least one.
    request: the other fields of ExplainRequest that were given.
    """

    archive: str
    input: str
    output: str
    layers: tuple[str, ...]
    methods: tuple[str, ...] = ("gradcam", "gradcam++")
    request: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    precision: str = "fp32"


@dataclass(frozen=True)
class PreviewOptions:
    """The command line of `jobs explain --preview-model`; target: None for the archive's."""

    archive: str
    target: str | None = None
    device: str = "cpu"
    precision: str = "fp32"


Options: TypeAlias = JobOptions | SweepOptions | PreviewOptions
COMMANDS: Mapping[str, Callable[..., Options]] = {
    kind.__name__: kind for kind in (JobOptions, SweepOptions, PreviewOptions)
}


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
        command = type(self.options).__name__
        return json.dumps({**asdict(self), "folder": str(self.folder), "command": command})

    @classmethod
    def from_json(cls, text: str) -> WorkOrder:
        values = json.loads(text)
        options = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values["options"].items()
        }
        return cls(
            COMMANDS[values["command"]](**options),
            ArchiveFacts(**values["archive"]),
            Path(values["folder"]),
        )

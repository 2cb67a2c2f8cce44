"""What the coordinator of a job and its workers tell each other: one JSON object a line.

A worker's last lines outlive it in the pipe, so they also say which pictures it had in hand when it
died.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

Place: TypeAlias = int  # of a picture in its shard, from 0
# Instead of a shard's order: there are no more, but the contact sheet is to be drawn.
SHEET = b"sheet\n"


@dataclass(frozen=True)
class Blame:
    """A picture that ended its process: it is recorded, not tried again.

    stage: what was being done with it. signal: by name, what ended the process.
    """

    place: Place
    stage: str
    signal: str


@dataclass(frozen=True)
class ShardOrder:
    """A shard to be done.

    alone: pictures in hand when a worker died; each is done with nothing else in hand.
    blamed: pictures that killed a worker when they were alone.
    """

    number: int
    alone: tuple[Place, ...] = ()
    blamed: tuple[Blame, ...] = ()

    def to_line(self) -> bytes:
        return _line(asdict(self))

    @classmethod
    def from_line(cls, line: bytes) -> ShardOrder:
        values = json.loads(line)
        blamed = tuple(Blame(**each) for each in values["blamed"])
        return cls(values["number"], tuple(values["alone"]), blamed)


@dataclass(frozen=True)
class Job:
    """What all shards of a job share; a worker waits for it once it is ready.

    source, output: roots of stores. overlays: "none", "all" or "each". lease, token: who may
    write (see jobs.lease). trial: keys of pictures to explain without writing anything, instead.
    """

    source: str
    output: str
    pictures: int
    shard_size: int
    overlays: str
    lease: str = ""
    token: str = ""
    trial: tuple[str, ...] = ()

    def to_line(self) -> bytes:
        return _line(asdict(self))

    @classmethod
    def from_line(cls, line: bytes) -> Job:
        values = json.loads(line)
        return cls(**{**values, "trial": tuple(values["trial"])})


@dataclass(frozen=True)
class Ready:
    """The archive is loaded and the request makes sense.

    request: its fields, all resolved. gpus: how many the worker's process can see.
    """

    request: Mapping[str, Any]
    gpus: int = 0


@dataclass(frozen=True)
class Begun:
    """A worker has a picture in hand now; stage: decode, explain or render."""

    shard: int
    place: Place
    stage: str


@dataclass(frozen=True)
class Ended:
    """The picture is no longer in hand."""

    shard: int
    place: Place


@dataclass(frozen=True)
class Advanced:
    """So many more pictures are done, so many of them failed.

    seconds: since the last such message; loading, writing: how many of them the detector waited
    for pictures (store, decoder), and for what writes.
    """

    pictures: int
    failures: int
    seconds: float
    loading: float
    writing: float


@dataclass(frozen=True)
class Committed:
    """A shard is done; stats: what its stats.json holds."""

    stats: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Sampled:
    """So many pictures of a trial took so long, once the detector was warm."""

    pictures: int
    seconds: float


@dataclass(frozen=True)
class Drawn:
    """The contact sheet: whether there was anything to draw."""

    sheet: bool


Event: TypeAlias = Ready | Begun | Ended | Advanced | Committed | Sampled | Drawn
EVENTS: Mapping[str, type] = {
    kind.__name__: kind for kind in (Ready, Begun, Ended, Advanced, Committed, Sampled, Drawn)
}


def event_line(event: Event) -> bytes:
    """An event as a line."""
    return _line({"event": type(event).__name__, **asdict(event)})


def event_of(line: bytes) -> Event:
    """The event of a line that `event_line` gave."""
    values = json.loads(line)
    event: Event = EVENTS[values.pop("event")](**values)
    return event


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"

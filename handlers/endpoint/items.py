"""One request of a batch, as a server hands it over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from handlers.endpoint.caller import Caller
from handlers.endpoint.observation import Observation

PREDICT, EXPLAIN, DESCRIBE = "predict", "explain", "describe"


@dataclass(frozen=True)
class Item:
    """verb: PREDICT, EXPLAIN or DESCRIBE. fields: as the server hands them over. accept: the header
    Accept, "" for none. caller: who asks. sharers: how many answers the server sends in one with
    this. observation: filled in while it is answered."""

    verb: str
    fields: Mapping[str, Any]
    accept: str = ""
    caller: Caller = field(default_factory=Caller)
    sharers: int = 1
    observation: Observation = field(default_factory=Observation, compare=False)

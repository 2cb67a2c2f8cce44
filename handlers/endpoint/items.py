"""One request of a batch, as a server hands it over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREDICT, EXPLAIN, DESCRIBE = "predict", "explain", "describe"


@dataclass(frozen=True)
class Item:
    """verb: PREDICT, EXPLAIN or DESCRIBE. fields: as the server hands them over. accept: the header
    Accept, "" for none. sharers: how many answers the server sends in one with this."""

    verb: str
    fields: Mapping[str, Any]
    accept: str = ""
    sharers: int = 1

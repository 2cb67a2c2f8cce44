"""Reading JSON that somebody else may have written to do harm."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 64


def read_json(data: bytes) -> Any:
    """The values of `data`. Raises ValueError for what is no JSON, has numbers that are not finite,
    or is nested more than DEEPEST deep: code that walks it would end in a RecursionError."""
    try:
        values = json.loads(data)
        json.dumps(values, allow_nan=False)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    level, depth = [values], 0
    while level := [each for each in level if isinstance(each, (dict, list))]:
        depth += 1
        level = [
            inner for each in level for inner in (each.values() if isinstance(each, dict) else each)
        ]
    if depth > DEEPEST:
        raise ValueError(f"it is nested {depth} deep; at most {DEEPEST} is read")
    return values

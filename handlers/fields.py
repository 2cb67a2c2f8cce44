"""The kinds of fields that requests have: what text and JSON values each takes, which of them are
allowed, and how JSON Schema says so."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

TRUTHS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
# What float32 tells apart, and more than any picture has.
LEAST_SIDE, MOST_PIXELS = 1e-3, 1e6


# Of what came, which may be large, or lists in lists in lists.
SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxstring, SHORT.maxother = 3, 200, 200


class RequestError(ValueError):
    """A request that cannot be served: names the field, what came, and what is allowed."""

    def __init__(self, name: str, got: object, allowed: str) -> None:
        shown = SHORT.repr(got)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        super().__init__(f"{name}: got {shown}; allowed: {allowed}")
        self.name = name
        self.allowed = allowed


class Kind(ABC):
    """What values a field takes."""

    @property
    @abstractmethod
    def allowed(self) -> str:
        """In words."""

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether it is allowed, as Python has it."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """In JSON Schema, of JSON values. Text, as multipart fields have, is taken for all kinds
        besides."""

    def parsed(self, value: Any) -> Any:
        """From text or a JSON value. Raises ValueError or OverflowError for neither."""
        return value


def option(kind: Kind, default: Any, nullable: bool = False) -> Any:
    """A dataclass's field of a kind; `nullable`: None is allowed, too."""
    return field(default=default, metadata={"kind": kind, "nullable": nullable})


def kinds(owner: Any) -> dict[str, tuple[Kind, bool]]:
    """Of a dataclass made of options: each field's kind, and whether it is nullable."""
    return {each.name: (each.metadata["kind"], each.metadata["nullable"]) for each in fields(owner)}


def check_options(values: Any) -> None:
    """Raises RequestError for a field of a dataclass instance whose value its kind does not
    hold."""
    for name, (kind, nullable) in kinds(values).items():
        value = getattr(values, name)
        if not (nullable and value is None) and not kind.holds(value):
            raise RequestError(name, value, kind.allowed)


def parse_option(owner: Any, name: str, value: Any) -> Any:
    """The value of a dataclass's field from text or JSON. Raises RequestError for one that is not
    allowed, or a field that is not known."""
    known = kinds(owner)
    if name not in known:
        raise RequestError("field", name, ", ".join(known))
    kind, nullable = known[name]
    if nullable and value is None:
        return None
    try:
        parsed = kind.parsed(value)
    except (ValueError, OverflowError) as error:
        raise RequestError(name, value, kind.allowed) from error
    if not kind.holds(parsed):
        raise RequestError(name, value, kind.allowed)
    return parsed


@dataclass(frozen=True)
class Number(Kind):
    """From `least` to `most`; `above`: `least` itself is not allowed."""

    least: float
    most: float
    above: bool = False

    @property
    def allowed(self) -> str:
        if self.above:
            return f"a number above {self.least:g}, at most {self.most:g}"
        return f"a number from {self.least:g} to {self.most:g}"

    def holds(self, value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.least <= value <= self.most and not (self.above and not value)

    def parsed(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(value)
        return float(value)

    def schema(self) -> dict[str, Any]:
        low = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "number", low: self.least, "maximum": self.most}


@dataclass(frozen=True)
class Whole(Kind):
    """An integer from `least` to `most`."""

    least: int
    most: int

    @property
    def allowed(self) -> str:
        return f"an integer from {self.least} to {self.most}"

    def holds(self, value: Any) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.least <= value <= self.most

    def parsed(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(value)
        number = int(value)
        if not isinstance(value, str) and number != value:
            raise ValueError(value)
        return number

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Truth(Kind):
    """True or false."""

    allowed = "true or false"

    def holds(self, value: Any) -> bool:
        return isinstance(value, bool)

    def parsed(self, value: Any) -> bool:
        key = value.lower() if isinstance(value, str) else value
        if not isinstance(key, (str, bool)) or key not in TRUTHS:
            raise ValueError(value)
        return TRUTHS[key]

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text(Kind):
    """Not empty. functions: a Python function is taken, too."""

    functions: bool = False

    @property
    def allowed(self) -> str:
        return "a non-empty string" + " or a function of the outputs" * self.functions

    def holds(self, value: Any) -> bool:
        return (isinstance(value, str) and bool(value)) or (self.functions and callable(value))

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True)
class Choice(Kind):
    """One of some names."""

    names: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return ", ".join(self.names)

    def holds(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.names

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.names)}


@dataclass(frozen=True)
class Box(Kind):
    """A tuple x1, y1, x2, y2 with an area; in text with commas between them."""

    allowed = "four numbers x1, y1, x2, y2 in picture pixels, with x1 < x2 and y1 < y2"

    def holds(self, value: Any) -> bool:
        if not isinstance(value, tuple) or len(value) != 4:
            return False
        if not all(Number(-MOST_PIXELS, MOST_PIXELS).holds(each) for each in value):
            return False
        x1, y1, x2, y2 = value
        return bool(x2 - x1 >= LEAST_SIDE and y2 - y1 >= LEAST_SIDE)

    def parsed(self, value: Any) -> tuple[float, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, Sequence):
            raise ValueError(value)
        return tuple(Number(-MOST_PIXELS, MOST_PIXELS).parsed(each) for each in parts)

    def schema(self) -> dict[str, Any]:
        edge = {"type": "number", "minimum": -MOST_PIXELS, "maximum": MOST_PIXELS}
        return {"type": "array", "items": edge, "minItems": 4, "maxItems": 4}

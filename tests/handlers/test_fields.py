from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from handlers.fields import (
    Box,
    Choice,
    Kind,
    Number,
    RequestError,
    Text,
    Truth,
    Whole,
    check_options,
    option,
    parse_option,
)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Number(0, 1), "0.25", 0.25),
        (Number(0, 1), 1, 1.0),
        (Whole(1, 9), "7", 7),
        (Whole(1, 9), 7.0, 7),
        (Whole(0, 2**63 - 1), str(2**63 - 1), 2**63 - 1),
        (Truth(), "True", True),
        (Truth(), "0", False),
        (Text(), "odam", "odam"),
        (Choice(("a", "b")), "b", "b"),
        (Box(), "1,2.5,3,4", (1.0, 2.5, 3.0, 4.0)),
        (Box(), [1, 2, 3, 4], (1.0, 2.0, 3.0, 4.0)),
    ],
)
def test_text_and_json(kind: Kind, value: Any, expected: Any) -> None:
    parsed = kind.parsed(value)
    assert parsed == expected
    assert type(parsed) is type(expected)
    assert kind.holds(parsed)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Number(0, 1), 1.01),
        (Number(0, 1), float("nan")),
        (Number(0, 1, above=True), 0.0),
        (Whole(1, 9), 10),
        (Whole(1, 9), 2.5),
        (Text(), ""),
        (Text(), 3),
        (Choice(("a", "b")), "c"),
        (Box(), [1, 2, 3]),
        (Box(), [1, 2, 3, 1e7]),
        (Truth(), 1),
    ],
)
def test_what_a_kind_refuses_its_schema_refuses(kind: Kind, value: Any) -> None:
    assert not kind.holds(tuple(value) if isinstance(value, list) else value)
    if value == value:  # JSON has no NaN
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, kind.schema())


@dataclass(frozen=True)
class Sizes:
    width: int = option(Whole(1, 5), 2)
    name: str | None = option(Text(), None, nullable=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("depth", 1, "field: got 'depth'; allowed: width, name"),
        ("width", None, "width: got None; allowed: an integer from 1 to 5"),
        ("width", "six", "width: got 'six'"),
        ("width", True, "width: got True"),
        ("name", {}, "name: got {}; allowed: a non-empty string"),
    ],
)
def test_fields_that_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_option(Sizes, name, value)


def test_fields_that_are_taken() -> None:
    assert parse_option(Sizes, "width", "4") == 4
    assert parse_option(Sizes, "name", None) is None
    check_options(Sizes(width=5, name="a"))
    with pytest.raises(RequestError, match="width: got 6"):
        check_options(Sizes(width=6))

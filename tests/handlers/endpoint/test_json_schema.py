from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest

from handlers.endpoint.json_schema import described, schema_of, schemas

DOCS = Path(__file__).parents[3] / "docs" / "schemas"


@dataclass(frozen=True)
class Example:
    """A thing, for example.

    It goes on here.

    width, height: sizes, in
        pixels. name: what it is: a name.
    """

    width: int
    height: int | None
    name: str
    corners: tuple[float, float]
    others: tuple[str, ...]


def test_docstrings_are_descriptions() -> None:
    about, texts = described(Example)
    assert about == "A thing, for example. It goes on here."
    assert texts == {
        "width": "sizes, in pixels.",
        "height": "sizes, in pixels.",
        "name": "what it is: a name.",
    }


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"height": None}, True),
        ({"width": None}, False),
        ({"corners": [1, 2, 3]}, False),
        ({"others": []}, True),
        ({"others": [1]}, False),
        ({"depth": 1}, False),
    ],
)
def test_types_are_checked(change: dict[str, object], valid: bool) -> None:
    value = {"width": 1, "height": 2, "name": "a", "corners": [1, 2.5], "others": ["b"], **change}
    assert jsonschema.Draft202012Validator(schema_of(Example)).is_valid(value) is valid


def test_a_type_without_a_schema_is_named() -> None:
    @dataclass(frozen=True)
    class Odd:
        value: bytes

    Odd.__annotations__["value"] = bytes
    with pytest.raises(TypeError, match="no JSON Schema is known"):
        schema_of(Odd)


@pytest.mark.parametrize("name", schemas())
def test_what_is_shipped_is_what_is_made(name: str) -> None:
    """Otherwise: python -m archives schemas --output docs/schemas"""
    schema = schemas()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads((DOCS / f"{name}.json").read_text()) == schema


def test_every_field_says_what_it_is() -> None:
    for name in ("explain-request", "error", "description"):
        for field, schema in schemas()[name]["properties"].items():
            assert schema.get("description"), (name, field)

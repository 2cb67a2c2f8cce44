"""JSON Schemas of what an endpoint reads and answers, made of the dataclasses that it uses."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from handlers.endpoint.answers import ErrorAnswer, ExplanationsAnswer
from handlers.endpoint.describe import Description
from handlers.endpoint.reading import AnswerOptions
from handlers.fields import kinds
from handlers.schema import ExplainRequest

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
# "name, another: what they are", and further lines of it.
FIELD = re.compile(r"(\w+(?:, \w+)*): (.*)")
NOT_OVER_HTTP = ("save_raw",)


def schemas() -> dict[str, dict[str, Any]]:
    """By file name: what /explanations takes as JSON and gives, what /predictions gives, what an
    error is, and what describe answers."""
    found = {
        "explain-request": _request(),
        "explanations": schema_of(ExplanationsAnswer),
        "predictions": _predictions(),
        "error": schema_of(ErrorAnswer),
        "description": schema_of(Description),
    }
    return {name: {"$schema": DIALECT, "title": name, **each} for name, each in found.items()}


def schema_of(owner: type) -> dict[str, Any]:
    """Of a dataclass, with its docstring: the words before its fields', and each field's own."""
    about, texts = described(owner)
    hints = typing.get_type_hints(owner)
    properties = {
        each.name: {**_of_type(hints[each.name]), **_text(texts.get(each.name))}
        for each in fields(owner)
    }
    return _object(properties, list(properties), about)


def described(owner: type) -> tuple[str, dict[str, str]]:
    """A dataclass's docstring: what comes before its fields, and the text of each field."""
    about: list[str] = []
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(owner.__doc__ or "").splitlines():
        # Several fields may share a line: "a: this. b: that."
        parts = re.split(r"(?<=\.) (?=\w+(?:, \w+)*: )", line)
        for part in parts:
            if found := FIELD.fullmatch(part):
                names = found[1].split(", ")
                texts |= dict.fromkeys(names, found[2])
            elif names and part.strip():
                texts |= {name: f"{texts[name]} {part.strip()}" for name in names}
            elif part.strip():
                about.append(part.strip())
    return " ".join(about), texts


def _request() -> dict[str, Any]:
    properties: dict[str, Any] = {
        "picture": {"type": "string", "contentEncoding": "base64", "description": "The picture."}
    }
    for owner in (ExplainRequest, AnswerOptions):
        texts = described(owner)[1]
        for name, (kind, nullable) in kinds(owner).items():
            if name not in NOT_OVER_HTTP:
                schema = _nullable(kind.schema()) if nullable else kind.schema()
                properties[name] = {**schema, **_text(texts.get(name))}
    return _object(properties, ["picture"], described(ExplainRequest)[0])


def _predictions() -> dict[str, Any]:
    box = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
    return {
        "description": "TorchServe's conventional answer, best score first: of each box its"
        " category's name with x1, y1, x2, y2 in pixels of the picture, and its score.",
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"score": {"type": "number", "minimum": 0, "maximum": 1}},
            "additionalProperties": box,
            "required": ["score"],
            "minProperties": 2,
            "maxProperties": 2,
        },
    }


def _object(properties: dict[str, Any], required: list[str], about: str) -> dict[str, Any]:
    return {
        **_text(about),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _of_type(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if is_dataclass(hint):
        return schema_of(typing.cast(type, hint))
    if origin in (typing.Union, types.UnionType):
        (other,) = (each for each in arguments if each is not type(None))
        return _nullable(_of_type(other))
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": _of_type(arguments[0])}
    if origin is tuple:
        number = len(arguments)
        return {
            "type": "array",
            "items": _of_type(arguments[0]),
            "minItems": number,
            "maxItems": number,
        }
    if origin is Mapping:
        value = arguments[1]
        rest = {} if value is Any else {"additionalProperties": _of_type(value)}
        return {"type": "object", **rest}
    raise TypeError(f"{hint}: no JSON Schema is known for it; add it here")


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _text(text: str | None) -> dict[str, str]:
    return {"description": text} if text else {}

"""KServe's two shapes of requests, V1 and V2 (open inference protocol), to items of ours and back.

TorchServe has envelopes of its own for them, which read the first request of a batch only; here
every request of a batch has its answer, and may have several pictures.

V1: {"instances": [{"picture": "...", "method": "odam"}, ...], "parameters": {...}} is answered with
{"predictions": [...]} or {"explanations": [...]}.
V2: {"id": "7", "inputs": [{"name": "picture", "shape": [2], "datatype": "BYTES", "data": ["...",
"..."]}, {"name": "method", ...}], "parameters": {...}} with outputs of JSON text, one a picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from handlers.endpoint.answers import to_json
from handlers.endpoint.items import EXPLAIN, Item
from handlers.endpoint.reading import PICTURE_FIELDS
from handlers.endpoint.writing import Answer
from handlers.fields import RequestError

MOST_INSTANCES = 32
INSTANCES = f"a list of 1 to {MOST_INSTANCES} objects"
INPUTS = f"a list of tensors, of which one is named picture and has 1 to {MOST_INSTANCES} values"


@dataclass(frozen=True)
class Opened:
    """What a request holds, and how the answers to that become its answer."""

    items: Sequence[Item]
    fold: Callable[[Sequence[Answer]], Answer]


def opened(item: Item, model: tuple[str, str]) -> Opened:
    """The items of a request, which is its own item where it has neither shape. model: name and
    version, as V2 answers repeat them. Raises RequestError for a shape that is wrong."""
    body = item.fields.get("body")
    if isinstance(body, Mapping) and "instances" in body:
        return _v1(item, body)
    if isinstance(body, Mapping) and "inputs" in body:
        return _v2(item, body, model)
    return Opened([item], lambda answers: answers[0])


def _v1(item: Item, body: Mapping[str, Any]) -> Opened:
    _only(body, "instances", "parameters")
    instances = body["instances"]
    if not isinstance(instances, list) or not 0 < len(instances) <= MOST_INSTANCES:
        raise RequestError("instances", instances, INSTANCES)
    if not all(isinstance(each, Mapping) for each in instances):
        raise RequestError("instances", instances, INSTANCES)

    def fold(answers: Sequence[Answer]) -> Answer:
        values = [json.loads(each.body) for each in answers]
        return Answer(to_json({_name(item): values}), status=_status(answers))

    return Opened(_items(item, body, instances), fold)


def _v2(item: Item, body: Mapping[str, Any], model: tuple[str, str]) -> Opened:
    _only(body, "id", "inputs", "parameters", "outputs")
    columns = _columns(body["inputs"])
    pictures = next((columns[name] for name in PICTURE_FIELDS if name in columns), [])
    if not 0 < len(pictures) <= MOST_INSTANCES:
        raise RequestError("inputs", body["inputs"], INPUTS)
    for name, values in columns.items():
        if len(values) not in (1, len(pictures)):
            raise RequestError(name, values, f"one value, or {len(pictures)} as of the picture")
    rows = [
        {name: values[min(place, len(values) - 1)] for name, values in columns.items()}
        for place in range(len(pictures))
    ]

    def fold(answers: Sequence[Answer]) -> Answer:
        output = {
            "name": _name(item),
            "shape": [len(answers)],
            "datatype": "BYTES",
            "data": [each.body.decode() for each in answers],
        }
        found = {"model_name": model[0], "model_version": model[1], "outputs": [output]}
        if "id" in body:
            found["id"] = str(body["id"])
        return Answer(to_json(found), status=_status(answers))

    return Opened(_items(item, body, rows), fold)


def _columns(inputs: object) -> dict[str, list[Any]]:
    """The values of each tensor by its name."""
    if not isinstance(inputs, list):
        raise RequestError("inputs", inputs, INPUTS)
    columns: dict[str, list[Any]] = {}
    for tensor in inputs:
        if not isinstance(tensor, Mapping) or not isinstance(tensor.get("name"), str):
            raise RequestError("inputs", tensor, INPUTS)
        name, data = tensor["name"], tensor.get("data")
        if name in columns or not isinstance(data, list) or not data:
            raise RequestError(name, data, "one tensor of that name, with its values in a list")
        columns[name] = data
    return columns


def _items(item: Item, body: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Item]:
    shared = body.get("parameters", {})
    if not isinstance(shared, Mapping):
        raise RequestError("parameters", shared, "an object of fields that all pictures share")
    found = [{**shared, **row} for row in rows]
    for each in found:
        if each.get("format", "json") != "json":
            raise RequestError("format", each["format"], "json, in KServe's shapes")
    return [replace(item, fields={"body": each}, sharers=len(found)) for each in found]


def _only(body: Mapping[str, Any], *known: str) -> None:
    for name in body:
        if name not in known:
            raise RequestError("field", name, ", ".join(known))


def _name(item: Item) -> str:
    return "explanations" if item.verb == EXPLAIN else "predictions"


def _status(answers: Sequence[Answer]) -> int:
    """200 if one is good; each says its own error."""
    return min(each.status for each in answers)

from __future__ import annotations

import json
import logging
import sys

from handlers.endpoint.json_log import FIELDS, REQUEST, JsonFormatter


def record(message: str, *values: object, **extra: object) -> logging.LogRecord:
    error = sys.exc_info() if sys.exc_info()[0] else None
    made = logging.LogRecord("handlers.x", logging.WARNING, "f.py", 1, message, values, error)
    made.__dict__.update(extra)
    return made


def test_a_record_is_one_line_of_json() -> None:
    text = JsonFormatter({"model": "demo"}).format(
        record("a\n%s", "ä", **{REQUEST: "7", FIELDS: {"status": 200}})
    )
    assert "\n" not in text
    assert text.startswith('{"time": "20')
    line = json.loads(text)
    assert line.pop("time")[-6:] == "+00:00"
    assert line == {
        "level": "WARNING",
        "logger": "handlers.x",
        "message": "a\nä",
        "model": "demo",
        "request_id": "7",
        "status": 200,
    }


def test_an_exception_brings_its_trace_along() -> None:
    try:
        raise KeyError("x")
    except KeyError:
        text = JsonFormatter({}).format(record("failed"))
    assert "\n" not in text
    assert json.loads(text)["exception"].endswith("KeyError: 'x'")

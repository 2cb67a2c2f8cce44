"""Our log lines as JSON, one object a line, which tools read without patterns."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# Of a log record: a request's id, and further fields.
REQUEST, FIELDS = "request_id", "fields"
LOGGER = "handlers"


class JsonFormatter(logging.Formatter):
    """{"time": ..., "level": ..., "logger": ..., "message": ...} with `request_id` and `fields` of
    the record's extra, and `exception` with its trace, in one line. `time` comes first: the
    server's log configuration knows our lines by that."""

    def __init__(self, always: Mapping[str, Any]) -> None:
        """always: fields of every line."""
        super().__init__()
        self.always = dict(always)

    def format(self, record: logging.LogRecord) -> str:
        """A line of ASCII, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self.always,
        }
        if request := getattr(record, REQUEST, ""):
            line[REQUEST] = request
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_as_json(always: Mapping[str, Any]) -> None:
    """What this package logs goes to the standard output as JSON, as the server reads its workers'.
    always: fields of every line. Called by who owns the process."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(always))
    logger = logging.getLogger(LOGGER)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)

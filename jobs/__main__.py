"""The command line: `python -m jobs explain | status | report | sweep | ...`, see --help."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

from jobs.commands.command import by_options
from jobs.commands.registry import COMMANDS, command_line
from jobs.errors import report
from jobs.launch import launch


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code (see --help)."""
    options = parse(arguments)
    if hasattr(options, "archive"):
        return report(lambda: launch(options))
    return report(lambda: _run(options))


def _run(options: Any) -> int:
    """What needs no archive, and so no other process."""
    command, _ = by_options(COMMANDS)[type(options).__name__]
    module, _, function = command.runs.partition(":")
    # Not before: these take time to import, and the parent of a worker needs none of them.
    try:
        code: int = getattr(importlib.import_module(module), function)(options)
        return code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def parse(arguments: Sequence[str] | None = None) -> Any:
    """The options of a command line; argparse itself exits with 2 where they make no sense.

    Those of `explain` may also come from the environment and from its --config.
    """
    values = vars(command_line().parse_args(arguments))
    command, parser = COMMANDS[values.pop("command")], values.pop("parser")
    return command.options_of(parser, values)


if __name__ == "__main__":
    sys.exit(main())

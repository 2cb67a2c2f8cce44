"""What all commands have in common: `--json`, exit codes, and how they end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from archives.errors import CommandError
from handlers.manifest import ArchiveError

DONE, USAGE, RETRY, INTERRUPTED = 0, 2, 75, 130

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace], int]


def add_command(
    commands: Commands, name: str, run: Run, description: str
) -> argparse.ArgumentParser:
    """A command that `run` does, which gives the exit code; with --json."""
    parser = commands.add_parser(name, help=description, description=description)
    parser.set_defaults(command=run)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: what came of it, or `error`"
    )
    return parser


def tell(options: argparse.Namespace, values: Mapping[str, Any], text: str) -> None:
    """Prints what came of a command: `values` as JSON where that was asked for, else `text`."""
    print(json.dumps(values, indent=1) if options.json else text, flush=True)


def run_command(options: argparse.Namespace) -> int:
    """Runs the command that was asked for; the exit code.

    An error is one clear message on stderr, and with --json an object on stdout, too.
    """
    run: Run = options.command
    try:
        return run(options)
    except (CommandError, ArchiveError, OSError) as error:
        failed = error
    except KeyboardInterrupt:
        return INTERRUPTED
    code = failed.exit_code if isinstance(failed, CommandError) else USAGE
    print(f"archives: {failed}", file=sys.stderr)
    if options.json:
        described = {"type": type(failed).__name__, "message": str(failed), "exit_code": code}
        if isinstance(failed, ArchiveError):
            described["problem"] = failed.problem
        print(json.dumps({"error": described}, indent=1), flush=True)
    return code

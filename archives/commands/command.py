"""What all commands have in common: `--json`, exit codes, and how they end.

With --json stdout is one JSON object, whatever happens.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from archives.errors import CommandError, UsageError
from handlers.manifest import ArchiveError

DONE, USAGE, RETRY, INTERRUPTED = 0, 2, 75, 130

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace], int]


class CommandLine(argparse.ArgumentParser):
    """A parser that raises UsageError for what it does not understand; its commands' do, too."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise UsageError(message)


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
    """Prints what came of a command: `values` as JSON where that was asked for, else `text`.

    Once for each command; raises ValueError for numbers that are not finite.
    """
    print(_as_json(values) if options.json else text, flush=True)
    options.told = True


def run_line(parser: CommandLine, arguments: Sequence[str]) -> int:
    """Runs the command of these arguments; the exit code. Errors as for `run_command`."""
    try:
        # No path has one, and each place that opens a path would fail in its own way.
        if any("\0" in each for each in arguments):
            raise UsageError("expected arguments without null bytes")
        options = parser.parse_args(arguments)
    except UsageError as error:
        # argparse takes --js for --json, too.
        return _failed(error, any(each in ("--js", "--jso", "--json") for each in arguments))
    return run_command(options)


def run_command(options: argparse.Namespace) -> int:
    """Runs the command that was asked for; the exit code.

    An error is one clear message on stderr, and with --json an object on stdout, too, unless the
    command has told something there already.
    """
    run: Run = options.command
    try:
        return run(options)
    except (CommandError, ArchiveError, OSError) as error:
        failed = error
    except KeyboardInterrupt:
        return INTERRUPTED
    return _failed(failed, options.json and not getattr(options, "told", False))


def _failed(failed: Exception, as_json: bool) -> int:
    code = failed.exit_code if isinstance(failed, CommandError) else USAGE
    print(f"archives: {failed}", file=sys.stderr)
    if as_json:
        described = {"type": type(failed).__name__, "message": str(failed), "exit_code": code}
        if isinstance(failed, ArchiveError):
            described["problem"] = failed.problem
        print(_as_json({"error": described}), flush=True)
    return code


def _as_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, allow_nan=False)

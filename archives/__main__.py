"""`python -m archives COMMAND`, see --help: build, verify, publish, serve, deploy .mar archives."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from archives.commands import building, deploying, mlflow, registering, serving, signing
from archives.commands.command import CommandLine, run_line

# Each adds its commands, in the order of an archive's life.
GROUPS = (building, signing, registering, mlflow, serving, deploying)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code. Errors are one clear message on stderr."""
    return run_line(command_line(), sys.argv[1:] if arguments is None else arguments)


def command_line() -> CommandLine:
    """The parser of all commands."""
    parser = CommandLine(prog="python -m archives", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Every command of `python -m jobs`, in the order of the help."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping

from jobs.commands import (
    audit,
    boxes,
    classify,
    compare,
    evaluate,
    explain,
    features,
    report,
    sanity,
    score,
    shortcuts,
    status,
    sweep,
    triage,
)
from jobs.commands.command import Command


def named(commands: Iterable[Command]) -> dict[str, Command]:
    """Commands by their names. Raises ValueError where two have one name."""
    found: dict[str, Command] = {}
    for each in commands:
        if each.name in found:
            raise ValueError(f"there are two commands {each.name}")
        found[each.name] = each
    return found


COMMANDS: Mapping[str, Command] = named(
    (
        explain.COMMAND,
        status.COMMAND,
        report.COMMAND,
        score.COMMAND,
        sweep.COMMAND,
        features.COMMAND,
        classify.COMMAND,
        evaluate.COMMAND,
        sanity.COMMAND,
        boxes.COMMAND,
        shortcuts.COMMAND,
        triage.COMMAND,
        compare.COMMAND,
        audit.COMMAND,
    )
)


def command_line() -> argparse.ArgumentParser:
    """Parses a command line to the values of its command, `command` and `parser`."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs",
        description=f"The command line: `python -m jobs {' | '.join(COMMANDS)}`.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for each in COMMANDS.values():
        own = commands.add_parser(
            each.name, help=each.help, description=each.description, epilog=each.epilog
        )
        own.set_defaults(parser=own)
        each.add_arguments(own)
    return parser

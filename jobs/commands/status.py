"""`python -m jobs status`."""

from __future__ import annotations

import argparse

from jobs.commands.command import Command
from jobs.options import StatusOptions


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUTPUT", help="the run's --output")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


COMMAND = Command(
    name="status",
    help="say how far a run is, what it found, and what to do next",
    description="Says how far the run is that `explain` wrote to OUTPUT.",
    options=(StatusOptions,),
    runs="jobs.status:status",
    add_arguments=_add_arguments,
)

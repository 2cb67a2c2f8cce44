"""`python -m jobs report`."""

from __future__ import annotations

import argparse

from jobs.commands.command import Command
from jobs.options import ReportOptions


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUTPUT", help="the run's --output")
    parser.add_argument("--coco", action="store_true", help="write COCO results JSON, too")


COMMAND = Command(
    name="report",
    help="merge what the parts of a run left",
    description="Merges what the shards of a run left, once all are done: for runs that were done"
    " in parts, with --shard.",
    options=(ReportOptions,),
    runs="jobs.report:report_command",
    add_arguments=_add_arguments,
)

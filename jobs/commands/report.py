"""`python -m jobs report`."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.commands import argument_types
from jobs.commands.command import Command
from jobs.options import ReportOptions
from jobs.page.options import ReportPageOptions


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUTPUT", help="the run's --output")
    parser.add_argument("--coco", action="store_true", help="write COCO results JSON, too")
    parser.add_argument(
        "--earlier",
        nargs="+",
        action="extend",
        default=[],
        metavar="OUTPUT",
        help="earlier runs, for plots over time; may be given several times",
    )
    parser.add_argument(
        "--gallery",
        type=argument_types.count,
        default=ReportPageOptions.gallery,
        metavar="N",
        help="at most so many pictures in the gallery, the worst first (default %(default)s)",
    )
    parser.add_argument(
        "--no-report-pictures",
        dest="pictures",
        action="store_false",
        help="no pixel of any picture in the report: boxes and heatmaps stand on an empty frame;"
        " so it is without this, too, for a run with --no-pictures",
    )


def _finish(parser: argparse.ArgumentParser, values: dict[str, Any]) -> ReportOptions:
    page = ReportPageOptions(
        tuple(values.pop("earlier")), values.pop("pictures"), values.pop("gallery")
    )
    return ReportOptions(**values, page=page)


COMMAND = Command(
    name="report",
    help="write the report of a run, and merge what its parts left",
    description="Writes OUTPUT/report/index.html: how a run went, what audits found in it, and a"
    " gallery of its boxes and heatmaps, the worst first. Of a run that was done in parts, with"
    " --shard, it first makes one, once all are done.",
    options=(ReportOptions,),
    runs="jobs.report:report_command",
    add_arguments=_add_arguments,
    finish=_finish,
)

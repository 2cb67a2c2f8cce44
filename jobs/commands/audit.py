"""`python -m jobs audit`."""

from __future__ import annotations

import argparse
from datetime import date

from jobs.audit.options import AuditOptions
from jobs.commands.command import Command


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="the audit's YAML file")
    parser.add_argument(
        "--date",
        type=_date,
        metavar="YYYY-MM-DD",
        help="the day that {date} in the file stands for (default: today, in UTC)",
    )
    parser.add_argument(
        "--keep",
        metavar="DAYS",
        help="remove the runs of days longer ago, such as 30d (default: the file's `keep`)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the commands that the file stands for, and do nothing",
    )


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected YYYY-MM-DD, got {text}") from None


COMMAND = Command(
    name="audit",
    help="explain, evaluate, compare and report, from one file, and say whether all is well",
    description="Does a whole audit, as its file says. The same command again explains and"
    " evaluates only what is missing.",
    options=(AuditOptions,),
    runs="jobs.audit.audit:audit",
    add_arguments=_add_arguments,
    epilog="exit codes: 0 all is well; 3 it is, but some pictures failed; 4 a threshold was missed,"
    " or a step failed; 130, 137 and 143 interrupted or killed; else as `explain`, which is its"
    " first step.",
)

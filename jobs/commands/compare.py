"""`python -m jobs compare`."""

from __future__ import annotations

import argparse

from jobs.audit.changes.options import CompareOptions
from jobs.commands import argument_types
from jobs.commands.command import Command
from jobs.commands.shared_arguments import EXIT_CODES


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", metavar="BEFORE", help="the --output of a finished run")
    parser.add_argument("after", metavar="AFTER", help="that of another over the same pictures")
    parser.add_argument(
        "--output",
        required=True,
        help="where the comparison goes: a folder or s3://bucket/prefix; AFTER, too",
    )
    for name, kind, text in (
        ("alpha", argument_types.part, "the chance of calling anything changed where nothing is"),
        ("iou", argument_types.part, "two boxes are one detection from this IoU on"),
        ("top", argument_types.count, "pictures to list, those that changed most"),
    ):
        default = getattr(CompareOptions, name)
        parser.add_argument(
            f"--{name}", type=kind, default=default, help=f"{text} (default %(default)s)"
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


COMMAND = Command(
    name="compare",
    help="say what changed between two runs",
    description="Matches the detections of two finished runs of `explain`, compares boxes, scores"
    " and maps, tests each category, and lists the pictures that changed most.",
    options=(CompareOptions,),
    runs="jobs.audit.changes.compare:compare",
    add_arguments=_add_arguments,
    epilog=EXIT_CODES,
)

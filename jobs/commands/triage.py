"""`python -m jobs triage`."""

from __future__ import annotations

import argparse
from typing import Any

from archives.commands.registry_option import add_registry
from jobs.audit.triage.options import TriageOptions
from jobs.commands import argument_types
from jobs.commands.command import Command
from jobs.commands.shared_arguments import (
    EXIT_CODES,
    add_machine,
    add_public_key,
    finish_public_keys,
)

MOST_SHIFTS = 8


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--archive", required=True, help="the run's: a .mar file, s3:// URI or NAME@ALIAS"
    )
    add_registry(parser)
    add_public_key(parser)
    parser.add_argument(
        "--run", required=True, metavar="OUTPUT", help="the --output of a finished run of explain"
    )
    parser.add_argument(
        "--output",
        required=True,
        help="where results go: a folder or s3://bucket/prefix; the run's",
    )
    parser.add_argument(
        "--truth", metavar="PLACE", help="annotations of the pictures: a folder, file or s3:// URI"
    )
    parser.add_argument(
        "--truth-format",
        choices=("auto", "voc", "coco", "yolo"),
        default=TriageOptions.truth_format,
        help="their form (default %(default)s: whichever is there)",
    )
    for name, kind, text in (
        ("shifts", _shifts, "copies of a picture, moved by a few pixels, to look at; 0 to 8"),
        ("most", argument_types.count, "pictures to look at again, and findings of a kind to list"),
        ("batch-size", argument_types.count, "as for explain"),
        ("seed", argument_types.seed, "of what is drawn at random"),
    ):
        default = getattr(TriageOptions, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}",
            type=kind,
            default=default,
            help=text if default is None else f"{text} (default %(default)s)",
        )
    add_machine(parser)


def _shifts(text: str) -> int:
    return argument_types.whole(text, 0, MOST_SHIFTS)


def _finish(parser: argparse.ArgumentParser, values: dict[str, Any]) -> TriageOptions:
    finish_public_keys(parser, values)
    return TriageOptions(**values)


COMMAND = Command(
    name="triage",
    help="say which pictures of a run need a person, and why",
    description="Ranks the pictures of a finished run of `explain`: by evidence off the box or"
    " scattered, by boxes that a move of a few pixels changes, and with --truth by what is wrong,"
    " and what was missed, and why.",
    options=(TriageOptions,),
    runs="jobs.audit.triage.triage:triage",
    add_arguments=_add_arguments,
    finish=_finish,
    epilog=EXIT_CODES,
)

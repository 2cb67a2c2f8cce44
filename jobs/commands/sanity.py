"""`python -m jobs sanity`."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.commands import argument_types
from jobs.commands.command import Command
from jobs.commands.shared_arguments import (
    EXIT_CODES,
    add_machine,
    add_maps,
    add_places,
    finish_maps,
    finish_public_keys,
)
from jobs.options import SanityOptions


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_places(parser)
    add_maps(parser, SanityOptions.methods, SanityOptions.layers)
    for name, kind, text in (
        ("detections", argument_types.count, "boxes to compare, or a few more"),
        ("score-threshold", argument_types.share, "compare boxes scoring more than this, 0 to 1"),
        (
            "per-picture",
            argument_types.count,
            "at most so many boxes of a picture, drawn at random",
        ),
        ("repeats", argument_types.count, "how often each part is randomised anew"),
        ("seed", argument_types.seed, "of what is drawn at random"),
    ):
        default = getattr(SanityOptions, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=kind, default=default, help=f"{text} (default %(default)s)"
        )
    parser.add_argument(
        "--no-pictures",
        dest="pictures",
        action="store_false",
        help="figures alone, for pictures that are private: no sheet of maps over one",
    )
    add_machine(parser)


def _finish(parser: argparse.ArgumentParser, values: dict[str, Any]) -> SanityOptions:
    finish_public_keys(parser, values)
    finish_maps(values, SanityOptions.methods)
    return SanityOptions(**values)


COMMAND = Command(
    name="sanity",
    help="see whether maps depend on what an archive's detector learned",
    description="Randomises the class head, the box head and the backbone of an archive's detector,"
    " one after the other, and compares the maps of the same boxes before and after. A method whose"
    " maps do not change is named: what it shows is not why the detector drew the box.",
    options=(SanityOptions,),
    runs="jobs.evaluation.sanity:sanity",
    add_arguments=_add_arguments,
    finish=_finish,
    epilog=EXIT_CODES,
)

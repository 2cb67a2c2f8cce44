"""`python -m jobs shortcuts`."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.audit.shortcuts_options import ShortcutsOptions
from jobs.commands import argument_types
from jobs.commands.command import Command
from jobs.commands.shared_arguments import EXIT_CODES, add_machine, add_places, finish_public_keys


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_places(parser)
    for name, kind, text in (
        ("score-threshold", argument_types.share, "ask detections scoring more than this, 0 to 1"),
        ("per-picture", argument_types.count, "at most so many of a picture, drawn at random"),
        ("pictures", argument_types.count, "look at so many pictures, drawn at random by --seed"),
        ("examples", _examples, "draw so many of what is flagged; 0 keeps pictures private"),
        ("batch-size", argument_types.count, "pictures in one pass of the detector"),
        ("seed", argument_types.seed, "of what is drawn at random"),
    ):
        default = getattr(ShortcutsOptions, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=kind, default=default, help=f"{text} (default %(default)s)"
        )
    for name, text in (
        ("method", "of the heatmap beside each example"),
        ("layer", "where it looks: one that sees beyond the box"),
    ):
        default = getattr(ShortcutsOptions, name)
        parser.add_argument(f"--{name}", default=default, help=f"{text} (default %(default)s)")
    add_machine(parser)


def _examples(text: str) -> int:
    return argument_types.whole(text, 0)


def _finish(parser: argparse.ArgumentParser, values: dict[str, Any]) -> ShortcutsOptions:
    finish_public_keys(parser, values)
    return ShortcutsOptions(**values)


COMMAND = Command(
    name="shortcuts",
    help="find detections whose evidence lies outside the object",
    description="Takes away what lies around each detection, and finds those that fall: by"
    " something beside the box, at the same spot of the frame, on a neighbour, or by their"
    " surroundings. Says which categories the detector knows by such shortcuts.",
    options=(ShortcutsOptions,),
    runs="jobs.audit.find_shortcuts:find_shortcuts",
    add_arguments=_add_arguments,
    finish=_finish,
    epilog=EXIT_CODES,
)

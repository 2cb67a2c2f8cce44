"""`python -m jobs sweep`."""

from __future__ import annotations

import argparse
from typing import Any

from archives.commands.registry_option import add_registry
from jobs.commands.command import Command
from jobs.commands.shared_arguments import (
    add_choice_of_boxes,
    add_machine,
    add_method,
    add_public_key,
    finish_public_keys,
    names,
    request_of,
)
from jobs.options import SweepOptions

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--archive", required=True, help="a .mar file, s3:// URI or NAME@ALIAS")
    add_registry(parser)
    add_public_key(parser)
    parser.add_argument("--input", required=True, metavar="PICTURE", help="a file or s3:// URI")
    parser.add_argument(
        "--output",
        required=True,
        type=_picture_name,
        metavar="PICTURE",
        help="what to draw: a name or s3:// URI ending in .png or .jpg",
    )
    parser.add_argument(
        "--layers",
        required=True,
        nargs="+",
        metavar="PATTERN",
        help="names, or patterns in quotes as the shell has them: * stands for anything, dots, too",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=SweepOptions.methods,
        metavar="METHOD",
        help="default: gradcam gradcam++",
    )
    add_choice_of_boxes(parser)
    add_method(parser)
    add_machine(parser)


def _picture_name(text: str) -> str:
    if not text.lower().endswith(PICTURE_SUFFIXES):
        raise argparse.ArgumentTypeError(
            f"expected a name ending in {', '.join(PICTURE_SUFFIXES)}, got {text}"
        )
    return text


def _finish(parser: argparse.ArgumentParser, values: dict[str, Any]) -> SweepOptions:
    finish_public_keys(parser, values)
    request = request_of(values)
    values |= {name: names(values[name]) for name in ("layers", "methods")}
    return SweepOptions(**values, request=request)


COMMAND = Command(
    name="sweep",
    help="draw one picture's explanations by several methods on several layers",
    description="Draws a grid: a row for each method, a column for each layer.",
    options=(SweepOptions,),
    runs="jobs.sweep:sweep",
    add_arguments=_add_arguments,
    finish=_finish,
)

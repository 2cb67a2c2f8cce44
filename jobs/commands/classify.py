"""`python -m jobs classify`."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.commands.command import Command
from jobs.commands.shared_arguments import add_machine, add_places, finish_public_keys
from jobs.options import ClassifyOptions


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_places(parser)
    parser.add_argument(
        "--layer", metavar="NAME", help="a module by name (default: the last convolutional stage)"
    )
    parser.add_argument("--category", help="the class to explain (default: the best)")
    add_machine(parser)


def _finish(parser: argparse.ArgumentParser, values: dict[str, Any]) -> ClassifyOptions:
    finish_public_keys(parser, values)
    return ClassifyOptions(**values)


COMMAND = Command(
    name="classify",
    help="draw a classifier's Grad-CAM, Grad-CAM++ and guided backpropagation",
    description="Draws six PNG files of each picture, and a sheet of them: heatmap and overlay of"
    " Grad-CAM and of Grad-CAM++, guided backpropagation, Guided Grad-CAM. What was drawn before is"
    " replaced.",
    options=(ClassifyOptions,),
    runs="jobs.classify:classify",
    add_arguments=_add_arguments,
    finish=_finish,
)

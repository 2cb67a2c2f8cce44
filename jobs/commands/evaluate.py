"""`python -m jobs evaluate`."""

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
from jobs.options import TRUTH_FORMATS, EvaluateOptions


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_places(parser)
    parser.add_argument(
        "--controls",
        action=argparse.BooleanOptionalAction,
        default=EvaluateOptions.controls,
        help="measure two maps that explain nothing, too: a smooth random field, and a Gaussian at"
        " the box's middle; and each map's difference from them (default on)",
    )
    add_maps(parser, EvaluateOptions.methods, EvaluateOptions.layers)
    parser.add_argument(
        "--truth",
        metavar="PLACE",
        help="annotations, a folder, file or s3:// URI: measure the boxes that are matched one to"
        " one with a true object of their category, and hold maps against its box and mask",
    )
    parser.add_argument(
        "--truth-format",
        choices=TRUTH_FORMATS,
        default=EvaluateOptions.truth_format,
        help="of the annotations (default: told by what lies there)",
    )
    parser.add_argument(
        "--score-threshold",
        type=argument_types.share,
        help="measure boxes scoring more than this, 0 to 1 (default: 0.5; with --truth 0.1)",
    )
    parser.add_argument(
        "--threshold",
        dest="thresholds",
        action="append",
        default=[],
        type=argument_types.threshold,
        metavar="FIGURE>=NUMBER",
        help="what a map's mean figure has to reach (or <=), as 'default energy>=0.3'; several may"
        " be given. audit.json says whether they do, for a registry's gate; 4 if not",
    )
    for name, kind, text in (
        ("detections", argument_types.count, "boxes to measure, or a few more"),
        (
            "per-picture",
            argument_types.count,
            "at most so many boxes of a picture, drawn at random",
        ),
        ("steps", _steps, "points of a curve of deletion or insertion"),
        ("blur", _blur, "what insertion begins with: a Gaussian, as a share of the longer side"),
        ("growth", _growth, "1: as many pixels at each step; 2: fewer at first, for small objects"),
        ("batch-size", argument_types.count, "pictures in one pass of the detector"),
        ("seed", argument_types.seed, "of what is drawn at random"),
    ):
        default = getattr(EvaluateOptions, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=kind, default=default, help=f"{text} (default %(default)s)"
        )
    add_machine(parser)


def _steps(text: str) -> int:
    return argument_types.whole(text, 2)


def _blur(text: str) -> float:
    return argument_types.number(text, 0.001, 1)


def _growth(text: str) -> float:
    return argument_types.number(text, 1, 4)


def _finish(parser: argparse.ArgumentParser, values: dict[str, Any]) -> EvaluateOptions:
    finish_public_keys(parser, values)
    if values["truth"] is None and values["truth_format"] != EvaluateOptions.truth_format:
        parser.error("--truth-format says how to read --truth, which is missing")
    finish_maps(values, EvaluateOptions.methods)
    values["thresholds"] = tuple(dict.fromkeys(values["thresholds"]))
    return EvaluateOptions(**values)


COMMAND = Command(
    name="evaluate",
    help="measure methods and layers on an archive's detector",
    description="Measures how well methods on layers explain the boxes of an archive's detector:"
    " pointing game, energy, compactness, deletion and insertion; with --truth against true"
    " objects. The same command again does only what is missing.",
    options=(EvaluateOptions,),
    runs="jobs.evaluation.evaluate:evaluate",
    add_arguments=_add_arguments,
    finish=_finish,
    epilog=EXIT_CODES,
)

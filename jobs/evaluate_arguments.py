"""The arguments of `python -m jobs evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from jobs.options import EvaluateOptions

Add = Callable[[argparse.ArgumentParser], None]


def add_evaluate(parser: argparse.ArgumentParser, add_places: Add, add_machine: Add) -> None:
    """Adds them; add_places and add_machine: what commands share."""
    parser.set_defaults(parser=parser)
    add_places(parser)
    parser.add_argument(
        "--controls",
        action="store_true",
        help="measure two maps that explain nothing, too: a smooth random field, and a Gaussian at"
        " the box's middle; and each map's difference from them",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=EvaluateOptions.methods,
        metavar="METHOD",
        help=f"default: {' '.join(EvaluateOptions.methods)}",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        default=EvaluateOptions.layers,
        metavar="NAME",
        help="where to look: emitting, pyramid, roi, or modules by name; a+b is the fusion of a and"
        f" b (default: {' '.join(EvaluateOptions.layers)})",
    )
    parser.add_argument("--target", help="what to explain, e.g. class (default: the archive's)")
    parser.add_argument(
        "--masks",
        type=_count,
        help="drise, dclose: how many masked pictures to look at (default: the method's paper's)",
    )
    parser.add_argument(
        "--smooth",
        type=_share,
        nargs="+",
        default=EvaluateOptions.smooth,
        metavar="SHARE",
        help="blur each map by a Gaussian of this share of its box's side, 0 to 1; of several"
        " shares it is measured with each (default: 0)",
    )
    for name, kind, text in (
        ("detections", _count, "boxes to measure, or a few more"),
        ("score-threshold", _share, "measure boxes scoring more than this, 0 to 1"),
        ("per-picture", _count, "at most so many boxes of a picture, drawn at random"),
        ("steps", _steps, "points of a curve of deletion or insertion"),
        ("blur", _blur, "what insertion begins with: a Gaussian, as a share of the longer side"),
        ("growth", _growth, "1: as many pixels at each step; 2: fewer at first, for small objects"),
        ("batch-size", _count, "pictures in one pass of the detector"),
        ("seed", _seed, "of what is drawn at random"),
    ):
        default = getattr(EvaluateOptions, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=kind, default=default, help=f"{text} (default %(default)s)"
        )
    add_machine(parser)


def _number(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(
            f"expected a number from {least:g} to {most:g}, got {text}"
        )
    return number


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text}")
    return number


def _count(text: str) -> int:
    return _whole(text, 1)


def _seed(text: str) -> int:
    return _whole(text, 0)


def _steps(text: str) -> int:
    return _whole(text, 2)


def _share(text: str) -> float:
    return _number(text, 0, 1)


def _blur(text: str) -> float:
    return _number(text, 0.001, 1)


def _growth(text: str) -> float:
    return _number(text, 1, 4)

"""`python -m jobs boxes`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from jobs.boxes.options import (
    CLASSES,
    COMPONENTS,
    CONNECTIVITY,
    AgainOptions,
    BoxesOptions,
)
from jobs.commands import argument_types
from jobs.commands.command import Command
from jobs.commands.shared_arguments import (
    Layers,
    Several,
    add_machine,
    add_places,
    finish_public_keys,
)

# The fields of a request that can be given.
REQUEST = ("method", "target", "layer", "score_threshold", "max_detections")
# A sweep of more steps is a slip of the pen.
MOST_THRESHOLDS = 1000


class _Sweep(Several):
    """Numbers, or START:STOP:STEP with both ends, to a sorted tuple of each once."""

    @staticmethod
    def convert(texts: Sequence[str]) -> tuple[float, ...]:
        found: list[float] = []
        for text in texts:
            parts = [argument_types.part(part) for part in text.split(":")]
            sweep = len(parts) == 3 and parts[0] <= parts[1]
            if len(parts) != 1 and not (sweep and parts[2] >= 1 / MOST_THRESHOLDS):
                raise argparse.ArgumentTypeError(
                    f"expected a number above 0, at most 1, or START:STOP:STEP, got {text}"
                )
            start, stop, step = (parts * 3)[:3]
            found += [start] if len(parts) == 1 else _between(start, stop, step)
        return tuple(sorted(set(found)))


def _between(start: float, stop: float, step: float) -> list[float]:
    number = int((stop - start) / step + 1e-6)
    # What is meant by 0.05:0.95:0.05 are numbers of two digits.
    return [round(start + step * place, 6) for place in range(number + 1)]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_places(parser)
    for action in parser._actions:  # --again does without them
        action.required = False
    parser.add_argument(
        "--again",
        metavar="OUTPUT",
        help="make boxes of the maps of an output of this command, without an archive; they replace"
        " those that are there, or go to --output",
    )
    parser.add_argument(
        "--truth",
        metavar="PLACE",
        help="annotations in the form of VOC, COCO or YOLO (default: the input, if it is a VOC"
        " folder)",
    )
    parser.add_argument(
        "--truth-format", help="voc, coco, yolo or auto, what is there (default auto)"
    )
    parser.add_argument(
        "--category",
        dest="categories",
        nargs="+",
        metavar="NAME",
        help="only these categories of the truth",
    )
    parser.add_argument(
        "--categories-map",
        metavar="FILE",
        help="YAML: which of the network's classes stand for a category of the truth, as 'dog:"
        " [151-268]' or 'cup: [mug, coffee cup]' (default: those of the same names)",
    )
    parser.add_argument(
        "--classes",
        choices=CLASSES,
        help="of a classifier: explain the categories that are truly in each picture (true, the"
        " default), or its best class (predicted)",
    )
    parser.add_argument(
        "--tune-split",
        metavar="LIST",
        help="choose thresholds on the pictures of this list in the VOC folder's ImageSets/Main, as"
        " trainval (default: a random half of all pictures)",
    )
    parser.add_argument(
        "--score-split", metavar="LIST", help="and score them on those of this one, as test"
    )
    _add_step(parser)
    group = parser.add_argument_group("maps")
    group.add_argument("--method", help="as for explain (default: the archive's)")
    group.add_argument("--target", help="as for explain (default: the archive's)")
    group.add_argument("--layer", nargs="+", action=Layers, metavar="NAME", help="one, as there")
    group.add_argument(
        "--score-threshold",
        type=argument_types.share,
        help="of a detector: explain boxes scoring at least this, 0 to 1",
    )
    group.add_argument(
        "--max-detections",
        type=argument_types.count,
        help="of a detector: explain at most this many boxes of a picture",
    )
    group.add_argument("--batch-size", type=argument_types.count, help="as for explain")
    add_machine(parser)


def _add_step(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("boxes and scores")
    shares: dict[str, Any] = {"nargs": "+", "action": _Sweep, "metavar": "SHARE"}
    group.add_argument(
        "--thresholds",
        **shares,
        help="shares of a map's maximum, or START:STOP:STEP (default: 0.01 0.02 0.06 and"
        " 0.05:0.95:0.05)",
    )
    group.add_argument(
        "--iou", **shares, help="least overlaps with a true box (default: 0.3 0.4 0.5)"
    )
    group.add_argument(
        "--smooth",
        type=argument_types.share,
        metavar="SIGMA",
        help="blur each map first by a Gaussian of this share of the picture's longer side"
        " (default 0)",
    )
    group.add_argument(
        "--occlusion-radius",
        type=argument_types.part,
        metavar="SHARE",
        help="hide what is farther from a map's peak than this share of the picture's diagonal"
        " (default: nothing)",
    )
    group.add_argument(
        "--components",
        choices=COMPONENTS,
        help="the box of the largest connected component (the default), or of each",
    )
    group.add_argument(
        "--connectivity",
        type=int,
        choices=CONNECTIVITY,
        help="pixels that share an edge (4), or a corner, too (8, the default), are connected",
    )
    group.add_argument(
        "--controls",
        action="store_true",
        default=None,
        help="score Gaussians at the middle of the picture and of a detector's boxes, and these"
        " boxes themselves, too",
    )
    group.add_argument(
        "--seed",
        type=argument_types.seed,
        help="of the halves and of the sheet's pictures (default 0)",
    )


def _finish(parser: argparse.ArgumentParser, values: dict[str, Any]) -> BoxesOptions | AgainOptions:
    given = {name: value for name, value in values.items() if value is not None}
    if "again" in given:
        allowed = {each.name for each in fields(AgainOptions)}
        # --device and --precision have defaults.
        other = sorted(given.keys() - allowed - {"device", "precision", "registry"})
        if other:
            parser.error(
                "--again makes new boxes of the maps that are there: give it without"
                f" {', '.join(_flag(each) for each in other)}"
            )
        return AgainOptions(**{name: each for name, each in given.items() if name in allowed})
    missing = [_flag(name) for name in ("archive", "inputs", "output") if name not in given]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)} (or --again)")
    if given.get("tune_split") and not given.get("score_split"):
        parser.error("--tune-split needs --score-split: the pictures that are scored")
    finish_public_keys(parser, values)
    # Not by `request_of`: this command's --smooth and --seed are of the boxes.
    request = {name: given.pop(name) for name in REQUEST if name in given}
    given |= {"public_keys": values["public_keys"], "request": request}
    given["categories"] = tuple(dict.fromkeys(given.get("categories", ())))
    return BoxesOptions(**given)


def _flag(name: str) -> str:
    flags = {"inputs": "--input", "categories": "--category", "public_keys": "--public-key"}
    return flags.get(name, f"--{name.replace('_', '-')}")


COMMAND = Command(
    name="boxes",
    help="make boxes of heatmaps and score them against ground truth",
    description="Makes boxes of a classifier's or a detector's heatmaps, by thresholds, and scores"
    " them against ground truth: AP, recall, MaxBoxAcc. The same command again makes only the maps"
    " that are missing, and the boxes anew.",
    options=(BoxesOptions, AgainOptions),
    runs="jobs.boxes.study:boxes",
    add_arguments=_add_arguments,
    finish=_finish,
)

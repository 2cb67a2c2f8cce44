"""`python -m jobs score`."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.commands import argument_types
from jobs.commands.command import Command
from jobs.scoring.options import TRUTH_FORMATS, ScoreOptions


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", metavar="PLACE", help="a run's --output, or saved boxes' folder")
    parser.add_argument(
        "--truth", help="a run's ground truth: a folder, a file or an s3:// URI, of --truth-format"
    )
    parser.add_argument(
        "--truth-format",
        choices=TRUTH_FORMATS,
        default=ScoreOptions.truth_format,
        help="PASCAL VOC's XML files, COCO's instances or YOLO's text files (default: what is"
        " there)",
    )
    parser.add_argument(
        "--categories",
        nargs="+",
        default=(),
        metavar="NAME",
        help="names of YOLO's classes 0, 1, ... (default: classes.txt or data.yaml)",
    )
    parser.add_argument(
        "--iou",
        nargs="+",
        type=argument_types.part,
        default=ScoreOptions.iou,
        metavar="SHARE",
        help="the least overlaps that count, above 0 to 1 (default 0.5)",
    )
    parser.add_argument(
        "--score-threshold",
        type=argument_types.share,
        default=ScoreOptions.score_threshold,
        help="recall and precision are of boxes scoring at least this (default %(default)s);"
        " average precision is of all",
    )
    parser.add_argument(
        "--pixel",
        type=int,
        choices=(0, 1),
        default=ScoreOptions.pixel,
        help="1 where saved boxes' edges are their first and last pixel, so that a side is 1 longer"
        " (default 0: edges between pixels, as runs and --truth have them)",
    )
    parser.add_argument("--coco", action="store_true", help="COCO's twelve figures, too")
    parser.add_argument(
        "--output", help="where scores.json goes: a folder or s3://bucket/prefix (default: PLACE)"
    )
    parser.add_argument("--json", action="store_true", help="print scores.json instead of tables")


def _finish(parser: argparse.ArgumentParser, values: dict[str, Any]) -> ScoreOptions:
    values["iou"] = tuple(sorted(set(values["iou"])))
    values["categories"] = tuple(values["categories"])
    return ScoreOptions(**values)


COMMAND = Command(
    name="score",
    help="average precision of a run's boxes, or of saved ones, without a model",
    description="Scores the boxes that a run found against ground truth, or boxes that were saved"
    " beside it: average precision, recall and precision by category. No detector runs.",
    options=(ScoreOptions,),
    runs="jobs.scoring.score:score",
    add_arguments=_add_arguments,
    finish=_finish,
)

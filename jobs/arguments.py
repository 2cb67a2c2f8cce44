"""The arguments of `python -m jobs`, command by command."""

from __future__ import annotations

import argparse

from archives.commands.registry_option import add_registry
from jobs import argument_types
from jobs.evaluate_arguments import add_evaluate
from jobs.explain_arguments import add_explain
from jobs.options import FORMATS, OVER, FeatureOptions, SweepOptions
from jobs.shared_arguments import (
    add_choice_of_boxes,
    add_machine,
    add_method,
    add_places,
    add_public_key,
)

DESCRIPTION = (
    "The command line: `python -m jobs explain | status | report | sweep | features | classify |"
    " evaluate`."
)
REQUEST_FIELDS = (
    *("method", "target", "layer", "fuse", "category", "score_threshold", "max_detections"),
    *("box", "candidates", "sum_boxes", "shared", "save_raw"),
    *("normalize_in_box", "smooth", "center_prior"),
    *("ablation", "channels", "masks", "seed"),
)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")

EXIT_CODES = """\
exit codes: 0 done; 1 a bug; 2 wrong usage (options, input, output, credentials); 3 done, but some
pictures failed (see failures.parquet); 5 the archive was refused as unsafe; 6 the output belongs to
another run; 75 the store was down, try again; 130 or 143 interrupted; 137 a worker was killed. The
same command again does only what is missing."""


def command_line() -> argparse.ArgumentParser:
    """Parses a command line to the fields of its command's options, those of a request (each of
    REQUEST_FIELDS, None where it was not given), `command` and `parser`."""
    parser = argparse.ArgumentParser(prog="python -m jobs", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    add_explain(
        commands.add_parser(
            "explain",
            help="explain a detector's boxes on many pictures, or on one",
            description="Explains every box that an archive's detector draws on the input's"
            " pictures.",
            epilog=EXIT_CODES,
        )
    )
    _add_status(
        commands.add_parser(
            "status",
            help="say how far a run is, what it found, and what to do next",
            description="Says how far the run is that `explain` wrote to OUTPUT.",
        )
    )
    _add_report(
        commands.add_parser(
            "report",
            help="merge what the parts of a run left",
            description="Merges what the shards of a run left, once all are done: for runs that"
            " were done in parts, with --shard.",
        )
    )
    _add_sweep(
        commands.add_parser(
            "sweep",
            help="draw one picture's explanations by several methods on several layers",
            description="Draws a grid: a row for each method, a column for each layer.",
        )
    )
    _add_features(
        commands.add_parser(
            "features",
            help="draw layers' feature maps over pictures",
            description="Draws, for each picture, the feature maps of one or more layers. What was"
            " drawn before is replaced.",
        )
    )
    _add_classify(
        commands.add_parser(
            "classify",
            help="draw a classifier's Grad-CAM, Grad-CAM++ and guided backpropagation",
            description="Draws six PNG files of each picture, and a sheet of them: heatmap and"
            " overlay of Grad-CAM and of Grad-CAM++, guided backpropagation, Guided Grad-CAM. What"
            " was drawn before is replaced.",
        )
    )
    add_evaluate(
        commands.add_parser(
            "evaluate",
            help="measure methods and layers on an archive's detector",
            description="Measures how well methods on layers explain the boxes of an archive's"
            " detector: pointing game, energy in the box, deletion and insertion. The same command"
            " again does only what is missing.",
        ),
        add_places,
        add_machine,
    )
    return parser


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(parser=parser)
    parser.add_argument("output", metavar="OUTPUT", help="the run's --output")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(parser=parser)
    parser.add_argument("output", metavar="OUTPUT", help="the run's --output")
    parser.add_argument("--coco", action="store_true", help="write COCO results JSON, too")


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(parser=parser)
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


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(parser=parser)
    add_places(parser)
    parser.add_argument(
        "--layers",
        nargs="+",
        default=FeatureOptions.layers,
        metavar="NAME",
        help="modules by name, as --preview-model of explain lists them, or pyramid, the detector's"
        " own feature maps (the default)",
    )
    parser.add_argument(
        "--channel-reduction",
        type=str.lower,
        choices=("squeeze_mean", "select_max", "none"),
        default=FeatureOptions.channel_reduction,
        help="show the mean of a map's channels (the default), its strongest channel, or several"
        " channels",
    )
    parser.add_argument(
        "--topk",
        type=int,
        help="with none: the K strongest channels (default 4); -1 for all of a map of 1 or 3",
    )
    parser.add_argument(
        "--arrangement",
        nargs=2,
        type=argument_types.count,
        metavar=("ROWS", "COLUMNS"),
        help="with none: how a map's channels are arranged (default 2 2)",
    )
    parser.add_argument(
        "--over",
        choices=OVER,
        default=FeatureOptions.over,
        help="draw over the picture as loaded (the default), as the network saw it, or nothing",
    )
    parser.add_argument(
        "--alpha",
        type=argument_types.share,
        default=FeatureOptions.alpha,
        help="how much of the map's colours is mixed in, 0 to 1 (default %(default)s)",
    )
    parser.add_argument(
        "--score-threshold",
        type=argument_types.share,
        help="draw boxes scoring at least this on the picture",
    )
    parser.add_argument("--format", choices=FORMATS, default=FeatureOptions.format)
    add_machine(parser)


def _add_classify(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(parser=parser)
    add_places(parser)
    parser.add_argument(
        "--layer", metavar="NAME", help="a module by name (default: the last convolutional stage)"
    )
    parser.add_argument("--category", help="the class to explain (default: the best)")
    add_machine(parser)


def _picture_name(text: str) -> str:
    if not text.lower().endswith(PICTURE_SUFFIXES):
        raise argparse.ArgumentTypeError(
            f"expected a name ending in {', '.join(PICTURE_SUFFIXES)}, got {text}"
        )
    return text

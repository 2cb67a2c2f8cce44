"""The arguments of `python -m jobs`, command by command."""

from __future__ import annotations

import argparse
from typing import Any

from jobs import argument_types
from jobs.evaluate_arguments import add_evaluate
from jobs.options import (
    ABLATIONS,
    ENGINES,
    FORMATS,
    OVER,
    OVERLAYS,
    FeatureOptions,
    JobOptions,
    SweepOptions,
)

DESCRIPTION = "The command line: `python -m jobs explain | sweep | features | classify | evaluate`."
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
another run; 75 the store was down, try again; 130 or 143 interrupted. The same command again does
only what is missing."""


def command_line() -> argparse.ArgumentParser:
    """Parses a command line to the fields of its command's options, those of a request (each of
    REQUEST_FIELDS, None where it was not given), `command` and `parser`."""
    parser = argparse.ArgumentParser(prog="python -m jobs", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_explain(
        commands.add_parser(
            "explain",
            help="explain a detector's boxes on many pictures, or on one",
            description="Explains every box that an archive's detector draws on the input's"
            " pictures.",
            epilog=EXIT_CODES,
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
        _add_places,
        _add_machine,
    )
    return parser


def _add_explain(parser: argparse.ArgumentParser) -> None:
    place = "s3://bucket/prefix or a folder"
    parser.set_defaults(parser=parser)
    parser.add_argument("--archive", help="a .mar file, or its s3:// URI")
    parser.add_argument(
        "--input",
        dest="inputs",
        nargs="+",
        action="append",
        metavar="INPUT",
        help=f"pictures: {place} (with all below it), or files; may be given several times",
    )
    parser.add_argument("--output", help=f"where the results go: {place}")
    parser.add_argument(
        "--preview-model",
        action="store_true",
        help="print the detector's modules, a star at each that --layer takes, and stop",
    )
    parser.add_argument("--method", help="how to explain, e.g. odam (default: the archive's)")
    parser.add_argument(
        "--layer",
        nargs="+",
        action=_Layers,
        metavar="NAME",
        help="where to look: emitting (the level that emitted the box), roi, pyramid, or modules"
        " by name; several give a heatmap each",
    )
    parser.add_argument(
        "--fuse", action="store_true", default=None, help="one heatmap of several layers"
    )
    parser.add_argument(
        "--sum-boxes",
        action="store_true",
        default=None,
        help="one heatmap for all boxes of a picture together",
    )
    parser.add_argument(
        "--save-raw", action="store_true", default=None, help="keep activations and gradients"
    )
    _add_choice_of_boxes(parser)
    _add_method(parser)
    _add_machine(parser)
    parser.add_argument("--batch-size", type=argument_types.count, default=JobOptions.batch_size)
    parser.add_argument(
        "--shard-size",
        type=argument_types.count,
        default=JobOptions.shard_size,
        help="pictures per shard, the unit of commit (default %(default)s)",
    )
    parser.add_argument(
        "--overlays",
        choices=OVERLAYS,
        default=JobOptions.overlays,
        help="pictures to write: all boxes in one; each box, too; auto is each for up to 100 local"
        " pictures, else none",
    )
    parser.add_argument("--engine", choices=ENGINES, default=JobOptions.engine)


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(parser=parser)
    parser.add_argument("--archive", required=True, help="a .mar file, or its s3:// URI")
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
    _add_choice_of_boxes(parser)
    _add_method(parser)
    _add_machine(parser)


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(parser=parser)
    _add_places(parser)
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
    _add_machine(parser)


def _add_classify(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(parser=parser)
    _add_places(parser)
    parser.add_argument(
        "--layer", metavar="NAME", help="a module by name (default: the last convolutional stage)"
    )
    parser.add_argument("--category", help="the class to explain (default: the best)")
    _add_machine(parser)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--archive", required=True, help="a .mar file, or its s3:// URI")
    parser.add_argument(
        "--input",
        dest="inputs",
        required=True,
        nargs="+",
        action="append",
        metavar="INPUT",
        help="pictures: folders, s3:// prefixes or files; may be given several times",
    )
    parser.add_argument(
        "--output", required=True, help="where results go: a folder or s3://bucket/prefix"
    )


def _add_choice_of_boxes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", help="what to explain, e.g. class (default: the archive's)")
    parser.add_argument("--category", help="explain only boxes of this category")
    parser.add_argument(
        "--score-threshold",
        type=argument_types.share,
        help="explain only boxes scoring at least this, 0 to 1",
    )
    parser.add_argument(
        "--max-detections",
        type=argument_types.count,
        help="explain at most this many boxes of a picture",
    )
    parser.add_argument(
        "--box",
        nargs="+",
        action=_Box,
        metavar="X",
        help="why not: explain the candidate nearest to this box, x1 y1 x2 y2 in pixels, and say"
        " why it was dropped; with --category the nearest of that category",
    )
    parser.add_argument(
        "--candidates",
        type=argument_types.count,
        help="explain so many of the strongest candidates before suppression",
    )


def _add_method(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("methods and drawing")
    group.add_argument(
        "--normalize-in-box",
        action="store_true",
        default=None,
        help="draw each heatmap inside its box alone, from its least value there to its largest;"
        " where boxes overlap the larger value",
    )
    group.add_argument(
        "--smooth",
        type=argument_types.share,
        help="blur each map by a Gaussian of this share of its box's side, 0 to 1 (default 0;"
        " where no --method is named what suits the detector)",
    )
    group.add_argument(
        "--center-prior",
        type=argument_types.share,
        help="weigh each map by a Gaussian at its box's middle of this share of the box's sides, 0"
        " to 1 (default 0: none)",
    )
    group.add_argument(
        "--shared",
        action="store_true",
        default=None,
        help="one map for boxes that lie apart: of the sum of their targets, of which each box's"
        " --center-prior cuts out its own; it costs less where there are many",
    )
    group.add_argument(
        "--ablation",
        choices=ABLATIONS,
        help="ablationcam: set a channel to zero and score the same candidate (fixed, the default),"
        " or as pytorch-grad-cam's tutorial does (with --layer pyramid --target box_score)",
    )
    group.add_argument(
        "--channels",
        type=argument_types.part,
        help="ablationcam: remove only this share of the channels that show most of what EigenCAM"
        " shows and as many that show least, above 0 to 1 (default 1: all)",
    )
    group.add_argument(
        "--masks",
        type=argument_types.count,
        help="drise, dclose: how many masked pictures to look at (default: the method's paper's)",
    )
    group.add_argument(
        "--seed", type=argument_types.seed, help="drise, dclose: draws the random masks (default 0)"
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default=JobOptions.device, help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--precision", default=JobOptions.precision, help="fp32, bf16 or fast")


class _Layers(argparse.Action):
    """Several names, apart or with commas between them, to a request's one `layer`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        names = [name.strip() for value in values for name in value.split(",")]
        setattr(namespace, self.dest, ",".join(dict.fromkeys(names)))


class _Box(argparse.Action):
    """Four numbers, apart or with commas between them."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        parts = [part for value in values for part in value.split(",") if part]
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) != 4:
            got = " ".join(values)
            raise argparse.ArgumentError(self, f"expected four numbers x1 y1 x2 y2, got {got}")
        setattr(namespace, self.dest, numbers)


def _picture_name(text: str) -> str:
    if not text.lower().endswith(PICTURE_SUFFIXES):
        raise argparse.ArgumentTypeError(
            f"expected a name ending in {', '.join(PICTURE_SUFFIXES)}, got {text}"
        )
    return text

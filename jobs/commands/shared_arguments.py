"""Arguments that several commands of `python -m jobs` have."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import Any

from archives.commands.registry_option import add_registry
from archives.errors import UsageError
from jobs.commands import argument_types
from jobs.options import ABLATIONS, JobOptions
from jobs.public_keys import public_keys_in

REQUEST_FIELDS = (
    *("method", "target", "layer", "fuse", "category", "score_threshold", "max_detections"),
    *("box", "candidates", "sum_boxes", "shared", "save_raw"),
    *("normalize_in_box", "smooth", "center_prior"),
    *("ablation", "channels", "masks", "seed"),
)

# Of the commands that look at pictures or runs again; each has those that can be.
EXIT_CODES = (
    "exit codes: 0 done; 2 wrong usage; 3 done, but some pictures failed; 4 a threshold was missed;"
    " 5 the archive was refused as unsafe; 6 the output is another's; 7 there was nothing to"
    " measure; 75 the store was down, try again; 130, 137 and 143 interrupted or killed"
)


class Several(argparse.Action):
    """Several texts on the command line that are one value: `convert` says which.

    numbers: they are texts of numbers.
    """

    numbers = False

    @staticmethod
    def convert(texts: Sequence[str]) -> Any:
        """Their value. Raises argparse.ArgumentTypeError, "expected ..., got ..."."""
        raise NotImplementedError

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        try:
            value = self.convert(values)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from error
        setattr(namespace, self.dest, value)


class Inputs(Several):
    """Places; the option may be given several times."""

    @staticmethod
    def convert(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(texts)

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        before = getattr(namespace, self.dest) or ()
        setattr(namespace, self.dest, before + self.convert(values))


class Layers(Several):
    """Several names, apart or with commas between them, to a request's one `layer`."""

    @staticmethod
    def convert(texts: Sequence[str]) -> str:
        return ",".join(dict.fromkeys(name.strip() for text in texts for name in text.split(",")))


class Box(Several):
    """Four numbers, apart or with commas between them."""

    numbers = True

    @staticmethod
    def convert(texts: Sequence[str]) -> list[float]:
        parts = [part for text in texts for part in text.split(",") if part]
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) != 4:
            raise argparse.ArgumentTypeError(
                f"expected four numbers x1 y1 x2 y2, got {' '.join(texts)}"
            )
        return numbers


def add_places(parser: argparse.ArgumentParser) -> None:
    """--archive, --input, --output, all of which are required, --registry and --public-key."""
    parser.add_argument("--archive", required=True, help="a .mar file, s3:// URI or NAME@ALIAS")
    add_registry(parser)
    add_public_key(parser)
    parser.add_argument(
        "--input",
        dest="inputs",
        required=True,
        nargs="+",
        action=Inputs,
        metavar="INPUT",
        help="pictures: folders, s3:// prefixes or files; may be given several times",
    )
    parser.add_argument(
        "--output", required=True, help="where results go: a folder or s3://bucket/prefix"
    )


def add_public_key(parser: argparse.ArgumentParser) -> None:
    """--public-key; None where it was not given."""
    parser.add_argument(
        "--public-key",
        dest="public_keys",
        nargs=1,
        action=Inputs,
        metavar="FILE",
        help="run no archive without a signature (ARCHIVE.sig) by this key; several may be given,"
        " or WHYBOX_PUBLIC_KEY names them, and one of them suffices",
    )


def add_choice_of_boxes(parser: argparse.ArgumentParser) -> None:
    """Which boxes are explained, and what of them."""
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
        action=Box,
        metavar="X",
        help="why not: explain the candidate nearest to this box, x1 y1 x2 y2 in pixels, and say"
        " why it was dropped; with --category the nearest of that category",
    )
    parser.add_argument(
        "--candidates",
        type=argument_types.count,
        help="explain so many of the strongest candidates before suppression",
    )


def add_method(parser: argparse.ArgumentParser) -> None:
    """How a method works and how its maps are shown."""
    group = parser.add_argument_group("methods and drawing")
    group.add_argument(
        "--normalize-in-box",
        action=argparse.BooleanOptionalAction,
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
        action=argparse.BooleanOptionalAction,
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


def add_machine(parser: argparse.ArgumentParser) -> None:
    """--device and --precision."""
    parser.add_argument("--device", default=JobOptions.device, help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--precision", default=JobOptions.precision, help="fp32, bf16 or fast")


def finish_public_keys(parser: argparse.ArgumentParser, values: dict[str, Any]) -> None:
    """Of the environment where the command line gave none."""
    try:
        values["public_keys"] = values["public_keys"] or public_keys_in(os.environ)
    except UsageError as error:
        parser.error(str(error))


def request_of(values: dict[str, Any]) -> dict[str, Any]:
    """Takes the fields of a request out of a command's values: those that were given."""
    given = {name: values.pop(name, None) for name in REQUEST_FIELDS}
    return {name: value for name, value in given.items() if value is not None}


def names(texts: Iterable[str]) -> tuple[str, ...]:
    """Names, apart or with commas between them, each once."""
    several = (each.strip() for text in texts for each in text.split(","))
    return tuple(dict.fromkeys(each for each in several if each))


def add_maps(
    parser: argparse.ArgumentParser, methods: Sequence[str], layers: Sequence[str]
) -> None:
    """--methods, --layers, --maps and --target: which maps are measured; and what they are by
    themselves."""
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help=f"default: {' '.join(methods)}; with --maps none",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        default=layers,
        metavar="NAME",
        help="where to look: emitting, pyramid, roi, or modules by name; a+b is the fusion of a and"
        f" b (default: {' '.join(layers)})",
    )
    parser.add_argument(
        "--maps",
        nargs="+",
        default=(),
        metavar="FIELDS",
        help="maps by the fields of their requests, such as 'method=layercam layer=emitting,roi"
        " fuse=true smooth=0.2', or default for the archive's own (by itself besides --methods'"
        " default)",
    )
    parser.add_argument("--target", help="what to explain, e.g. class (default: the archive's)")


def finish_maps(values: dict[str, Any], methods: tuple[str, ...]) -> None:
    """The values of `add_maps` as options have them. methods: where nothing was named."""
    if values["methods"] is None and not values["maps"]:
        values |= {"methods": methods, "maps": ("default",)}
    elif values["methods"] is None:
        values["methods"] = ()
    values |= {name: names(values[name]) for name in ("layers", "methods")}
    values["maps"] = tuple(dict.fromkeys(values["maps"]))

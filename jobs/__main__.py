"""The command line: `python -m jobs explain`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from jobs.errors import report
from jobs.launch import launch
from jobs.options import ENGINES, OVERLAYS, JobOptions

REQUEST_FIELDS = ("method", "target", "layer", "category", "score_threshold", "max_detections")

EXIT_CODES = """\
exit codes: 0 done; 1 a bug; 2 wrong usage (options, input, output, credentials); 3 done, but some
pictures failed (see failures.parquet); 5 the archive was refused as unsafe; 6 the output belongs to
another run; 75 the store was down, try again; 130 or 143 interrupted. The same command again does
only what is missing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code (see --help)."""
    options = parse(arguments)
    return report(lambda: launch(options))


def parse(arguments: Sequence[str] | None = None) -> JobOptions:
    """The options of a command line; argparse itself exits with 2 where they make no sense."""
    values = vars(_parser().parse_args(arguments))
    del values["command"]
    given = {name: values.pop(name) for name in REQUEST_FIELDS}
    return JobOptions(
        **{**values, "inputs": tuple(uri for several in values["inputs"] for uri in several)},
        request={name: value for name, value in given.items() if value is not None},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    explain = commands.add_parser(
        "explain",
        help="explain a detector's boxes on many pictures, or on one",
        description="Explains every box that an archive's detector draws on the input's pictures.",
        epilog=EXIT_CODES,
    )
    place = "s3://bucket/prefix or a folder"
    explain.add_argument("--archive", required=True, help="a .mar file, or its s3:// URI")
    explain.add_argument(
        "--input",
        dest="inputs",
        required=True,
        nargs="+",
        action="append",
        metavar="INPUT",
        help=f"pictures: {place} (with all below it), or files; may be given several times",
    )
    explain.add_argument("--output", required=True, help=f"where the results go: {place}")
    explain.add_argument("--method", help="how to explain, e.g. odam (default: the archive's)")
    explain.add_argument("--target", help="what to explain, e.g. class (default: the archive's)")
    explain.add_argument("--layer", help="where to look (default: the level that emitted the box)")
    explain.add_argument("--category", help="explain only boxes of this category")
    explain.add_argument(
        "--score-threshold", type=_share, help="explain only boxes scoring at least this, 0 to 1"
    )
    explain.add_argument(
        "--max-detections", type=_count, help="explain at most this many boxes of a picture"
    )
    explain.add_argument("--batch-size", type=_count, default=JobOptions.batch_size)
    explain.add_argument("--device", default=JobOptions.device, help="cpu, cuda, cuda:1, ...")
    explain.add_argument("--precision", default=JobOptions.precision)
    explain.add_argument(
        "--shard-size",
        type=_count,
        default=JobOptions.shard_size,
        help="pictures per shard, the unit of commit (default %(default)s)",
    )
    explain.add_argument(
        "--overlays",
        choices=OVERLAYS,
        default=JobOptions.overlays,
        help="pictures to write: all boxes in one; each box, too; auto is each for up to 100 local"
        " pictures, else none",
    )
    explain.add_argument("--engine", choices=ENGINES, default=JobOptions.engine)
    return parser


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return number


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())

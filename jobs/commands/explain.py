"""`python -m jobs explain`, of whose arguments a file and the environment may give each."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from archives.commands.registry_option import add_registry
from archives.errors import UsageError
from jobs import array_index
from jobs.commands import argument_types
from jobs.commands.command import Command
from jobs.commands.shared_arguments import (
    Inputs,
    Layers,
    add_choice_of_boxes,
    add_machine,
    add_method,
    add_public_key,
    request_of,
)
from jobs.options import BATCH_SIZE, ENGINES, OVERLAYS, JobOptions, PreviewOptions

# Where the rest of the settings comes from, and another command: not settings themselves.
NO_SETTINGS = ("help", "config", "preview_model")
EXIT_CODES = """\
exit codes: 0 done; 1 a bug; 2 wrong usage (options, input, output, credentials); 3 done, but some
pictures failed (see failures.parquet); 5 the archive was refused as unsafe; 6 the output belongs to
another run; 75 the store was down, try again; 130 or 143 interrupted; 137 a worker was killed. The
same command again does only what is missing."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds them. What was not given is None: JobOptions, a file or the environment has it."""
    place = "s3://bucket/prefix or a folder"
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a YAML file of these options, by their names with underscores (batch_size: 16);"
        " flags go before the environment (WHYBOX_BATCH_SIZE=16), and that before the file",
    )
    parser.add_argument("--archive", help="a .mar file, s3:// URI or NAME@ALIAS")
    add_registry(parser)
    parser.add_argument(
        "--input",
        dest="inputs",
        nargs="+",
        action=Inputs,
        metavar="INPUT",
        help=f"pictures: {place} (with all below it), or files; may be given several times",
    )
    parser.add_argument("--output", help=f"where the results go: {place}")
    add_public_key(parser)
    parser.add_argument(
        "--preview-model",
        action="store_true",
        help="print the detector's modules, a star at each that --layer takes, and stop",
    )
    parser.add_argument("--method", help="how to explain, e.g. odam (default: the archive's)")
    parser.add_argument(
        "--layer",
        nargs="+",
        action=Layers,
        metavar="NAME",
        help="where to look: emitting (the level that emitted the box), roi, pyramid, or modules"
        " by name; several give a heatmap each",
    )
    for name, text in (
        ("fuse", "one heatmap of several layers"),
        ("sum-boxes", "one heatmap for all boxes of a picture together"),
        ("save-raw", "keep activations and gradients"),
    ):
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=text)
    add_choice_of_boxes(parser)
    add_method(parser)
    add_machine(parser)
    parser.set_defaults(device=None, precision=None)
    parser.add_argument(
        "--batch-size",
        type=argument_types.count,
        help=f"pictures in one pass of the detector (default {BATCH_SIZE}), and masked pictures for"
        " drise and dclose (default 4, with --device cuda 32); fewer where they do not fit memory",
    )
    parser.add_argument(
        "--shard-size",
        type=argument_types.count,
        help=f"pictures per shard, the unit of commit (default {JobOptions.shard_size})",
    )
    parser.add_argument(
        "--pictures",
        action=argparse.BooleanOptionalAction,
        help="with --no-pictures rows and maps alone: no contact sheet, and no overlays that were"
        " not asked for",
    )
    parser.add_argument(
        "--overlays",
        choices=OVERLAYS,
        help="pictures to write: all boxes in one; each box, too; auto is each for up to 100 local"
        " pictures, else none",
    )
    _add_bulk(parser)


def _add_bulk(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("many pictures, many machines")
    group.add_argument(
        "--manifest",
        metavar="FILE",
        help="a list of the pictures' keys, to be done instead of all that the input holds: CSV,"
        " JSON Lines or Parquet, or an S3 Inventory's manifest.json; a file or its s3:// URI",
    )
    group.add_argument(
        "--coco", action=argparse.BooleanOptionalAction, help="write COCO results JSON, too"
    )
    group.add_argument(
        "--workers",
        type=argument_types.count,
        metavar="N",
        help="worker processes, or Ray actors (default: one for each GPU, else one)",
    )
    group.add_argument(
        "--engine",
        choices=ENGINES,
        help="who runs the workers: this machine (local, the default) or a Ray cluster",
    )
    group.add_argument(
        "--shard",
        type=argument_types.part_of,
        metavar="INDEX/COUNT",
        help="do one of COUNT parts of the job, of 0 to COUNT - 1; /COUNT takes the index of a"
        " Kubernetes Indexed Job or an AWS Batch array from its environment. `report` merges",
    )
    group.add_argument(
        "--dry-run",
        action=argparse.BooleanOptionalAction,
        help="count pictures and shards, guess the time, and write nothing",
    )


def settable(parser: argparse.ArgumentParser) -> Mapping[str, argparse.Action]:
    """The arguments of a parser that `_add_arguments` filled that may come from a file or the
    environment, by their names there: the flags' with underscores."""
    actions = parser._actions  # argparse has no public name for a parser's own arguments
    flags = {
        next(each for each in action.option_strings if each[:2] == "--"): action
        for action in actions
    }
    names = {flag.removeprefix("--").replace("-", "_"): action for flag, action in flags.items()}
    return {name: action for name, action in names.items() if name not in NO_SETTINGS}


def _finish(parser: argparse.ArgumentParser, values: dict[str, Any]) -> JobOptions | PreviewOptions:
    from jobs.settings import settings  # a third of a second that the other commands need not pay

    preview, config = values.pop("preview_model"), values.pop("config")
    actions = settable(parser)
    flags = {name: values[action.dest] for name, action in actions.items()}
    try:
        found = settings(actions, {k: v for k, v in flags.items() if v is not None}, config)
        given = {actions[name].dest: value for name, value in found.items()}
        request = request_of(given)
        if not preview:
            given["shard"] = array_index.resolved(given.get("shard"), os.environ)
    except UsageError as error:
        parser.error(str(error))
    # argparse cannot require what --preview-model, a file or the environment does without.
    needed = ("archive",) if preview else ("archive", "input", "output")
    missing = [f"--{name}" for name in needed if actions[name].dest not in given]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    if preview:
        names = ("device", "precision", "public_keys", "registry")
        shared = {name: given[name] for name in names if name in given}
        return PreviewOptions(given["archive"], request.get("target"), **shared)
    if request.get("fuse") and request.get("save_raw"):
        parser.error("--save-raw keeps layers' own activations: give it without --fuse")
    if request.get("sum_boxes") and given.get("coco"):
        parser.error("--coco lists boxes one by one: give it without --sum-boxes")
    if given.get("dry_run") and given.get("shard"):
        parser.error("--dry-run looks at the whole job: give it without --shard")
    return JobOptions(**given, request=request)


COMMAND = Command(
    name="explain",
    help="explain a detector's boxes on many pictures, or on one",
    description="Explains every box that an archive's detector draws on the input's pictures.",
    options=(JobOptions, PreviewOptions),
    runs="",
    add_arguments=_add_arguments,
    finish=_finish,
    epilog=EXIT_CODES,
)

"""`python -m jobs features`."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.commands import argument_types
from jobs.commands.command import Command
from jobs.commands.shared_arguments import add_machine, add_places, finish_public_keys, names
from jobs.options import FORMATS, OVER, FeatureOptions


def _add_arguments(parser: argparse.ArgumentParser) -> None:
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


def _finish(parser: argparse.ArgumentParser, values: dict[str, Any]) -> FeatureOptions:
    finish_public_keys(parser, values)
    values["layers"] = names(values["layers"])
    chosen = {name: values.pop(name) for name in ("topk", "arrangement")}
    given = {name: value for name, value in chosen.items() if value is not None}
    if given and values["channel_reduction"] != "none":
        parser.error(f"--{next(iter(given))} is for --channel-reduction none")
    if "arrangement" in given:
        given["arrangement"] = tuple(given["arrangement"])
    return FeatureOptions(**values, **given)


COMMAND = Command(
    name="features",
    help="draw layers' feature maps over pictures",
    description="Draws, for each picture, the feature maps of one or more layers. What was drawn"
    " before is replaced.",
    options=(FeatureOptions,),
    runs="jobs.features:features",
    add_arguments=_add_arguments,
    finish=_finish,
)

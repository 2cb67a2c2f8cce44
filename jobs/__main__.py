"""The command line: `python -m jobs explain | sweep | features | classify | evaluate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from jobs.arguments import REQUEST_FIELDS, command_line
from jobs.errors import report
from jobs.launch import launch
from jobs.options import (
    ClassifyOptions,
    EvaluateOptions,
    FeatureOptions,
    JobOptions,
    Options,
    PreviewOptions,
    SweepOptions,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code (see --help)."""
    options = parse(arguments)
    return report(lambda: launch(options))


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options of a command line; argparse itself exits with 2 where they make no sense."""
    values = vars(command_line().parse_args(arguments))
    command = values.pop("command")
    parser = values.pop("parser")
    given = {name: values.pop(name, None) for name in REQUEST_FIELDS}
    request = {name: value for name, value in given.items() if value is not None}
    if command == "sweep":
        values |= {name: _names(values[name]) for name in ("layers", "methods")}
        return SweepOptions(**values, request=request)
    if values["inputs"] is not None:  # --preview-model does without
        values["inputs"] = tuple(uri for several in values["inputs"] for uri in several)
    if command == "features":
        return _feature_options(parser, values, request)
    if command == "classify":
        return ClassifyOptions(**values, **request)
    if command == "evaluate":
        if values["methods"] is None and not values["maps"]:
            values |= {"methods": EvaluateOptions.methods, "maps": ("default",)}
        elif values["methods"] is None:
            values["methods"] = ()
        values |= {name: _names(values[name]) for name in ("layers", "methods")}
        values["maps"] = tuple(dict.fromkeys(values["maps"]))
        return EvaluateOptions(**values, **request)
    return _explain_options(parser, values, request)


def _names(texts: Iterable[str]) -> tuple[str, ...]:
    """Names, apart or with commas between them, each once."""
    several = (each.strip() for text in texts for each in text.split(","))
    return tuple(dict.fromkeys(each for each in several if each))


def _explain_options(
    parser: argparse.ArgumentParser, values: dict[str, Any], request: dict[str, Any]
) -> Options:
    if values.pop("preview_model"):
        return PreviewOptions(
            values["archive"], request.get("target"), values["device"], values["precision"]
        )
    # argparse cannot require what --preview-model does without.
    places = {"archive": "--archive", "inputs": "--input", "output": "--output"}
    missing = [option for name, option in places.items() if values[name] is None]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    if request.get("fuse") and request.get("save_raw"):
        parser.error("--save-raw keeps layers' own activations: give it without --fuse")
    return JobOptions(**values, request=request)


def _feature_options(
    parser: argparse.ArgumentParser, values: dict[str, Any], request: dict[str, Any]
) -> Options:
    values["layers"] = _names(values["layers"])
    chosen = {name: values.pop(name) for name in ("topk", "arrangement")}
    given = {name: value for name, value in chosen.items() if value is not None}
    if given and values["channel_reduction"] != "none":
        parser.error(f"--{next(iter(given))} is for --channel-reduction none")
    if "arrangement" in given:
        given["arrangement"] = tuple(given["arrangement"])
    return FeatureOptions(**values, **given, **request)


if __name__ == "__main__":
    sys.exit(main())

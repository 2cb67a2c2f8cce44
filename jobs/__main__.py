"""The command line: `python -m jobs explain | status | report | sweep | ...`, see --help."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from archives.errors import UsageError
from jobs import array_index
from jobs.arguments import REQUEST_FIELDS, command_line
from jobs.errors import report
from jobs.explain_arguments import settable
from jobs.launch import launch
from jobs.options import (
    ClassifyOptions,
    EvaluateOptions,
    FeatureOptions,
    JobOptions,
    Options,
    PreviewOptions,
    ReportOptions,
    StatusOptions,
    SweepOptions,
)
from jobs.public_keys import public_keys_in


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code (see --help)."""
    options = parse(arguments)
    if isinstance(options, (StatusOptions, ReportOptions)):
        return report(lambda: _look(options))
    return report(lambda: launch(options))


def _look(options: StatusOptions | ReportOptions) -> int:
    """What needs no archive, and so no other process."""
    # Not before: these take time to import, and the parent of a worker needs none of them.
    try:
        if isinstance(options, StatusOptions):
            from jobs.status import status

            return status(options)
        from jobs.report import report_command

        return report_command(options.output, options.coco)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def parse(arguments: Sequence[str] | None = None) -> Options | StatusOptions | ReportOptions:
    """The options of a command line; argparse itself exits with 2 where they make no sense.

    Those of `explain` may also come from the environment and from its --config.
    """
    values = vars(command_line().parse_args(arguments))
    command = values.pop("command")
    parser = values.pop("parser")
    if command == "explain":
        return _explain_options(parser, values)
    if command == "status":
        return StatusOptions(**values)
    if command == "report":
        return ReportOptions(**values)
    try:
        values["public_keys"] = values["public_keys"] or public_keys_in(os.environ)
    except UsageError as error:
        parser.error(str(error))
    request = _request(values)
    if command == "sweep":
        values |= {name: _names(values[name]) for name in ("layers", "methods")}
        return SweepOptions(**values, request=request)
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
        values |= {name: tuple(dict.fromkeys(values[name])) for name in ("maps", "thresholds")}
        return EvaluateOptions(**values, **request)
    raise AssertionError(command)


def _request(values: dict[str, Any]) -> dict[str, Any]:
    """Takes the fields of a request out of a command's values: those that were given."""
    given = {name: values.pop(name, None) for name in REQUEST_FIELDS}
    return {name: value for name, value in given.items() if value is not None}


def _names(texts: Iterable[str]) -> tuple[str, ...]:
    """Names, apart or with commas between them, each once."""
    several = (each.strip() for text in texts for each in text.split(","))
    return tuple(dict.fromkeys(each for each in several if each))


def _explain_options(parser: argparse.ArgumentParser, values: dict[str, Any]) -> Options:
    from jobs.settings import settings  # a third of a second that the other commands need not pay

    preview, config = values.pop("preview_model"), values.pop("config")
    actions = settable(parser)
    flags = {name: values[action.dest] for name, action in actions.items()}
    try:
        found = settings(actions, {k: v for k, v in flags.items() if v is not None}, config)
        given = {actions[name].dest: value for name, value in found.items()}
        request = _request(given)
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

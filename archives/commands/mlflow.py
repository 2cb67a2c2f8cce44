"""mlflow-publish, mlflow-pull: archives in a team's MLflow model registry."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from archives.commands.building import described, in_words
from archives.commands.command import DONE, Commands, add_command, tell
from archives.errors import UsageError, shortened
from archives.registry.mlflow_registry import MlflowOptions, check_alias, publish, pull, set_alias
from archives.verify import verify

TRACKING_URI = "MLFLOW_TRACKING_URI"


def add_commands(commands: Commands) -> None:
    """mlflow-publish and mlflow-pull."""
    up = add_command(
        commands, "mlflow-publish", _publish, "make an archive a version in MLflow's model registry"
    )
    up.add_argument("archive", type=Path, metavar="ARCHIVE")
    up.add_argument("--alias", metavar="NAME", help="that names this version from now on")
    up.add_argument(
        "--signature", type=Path, metavar="FILE", help="by default ARCHIVE.sig, if that is there"
    )
    up.add_argument(
        "--experiment", default=MlflowOptions.experiment, metavar="NAME", help="for MLflow's runs"
    )
    down = add_command(
        commands, "mlflow-pull", _pull, "fetch an archive from MLflow's model registry and check it"
    )
    down.add_argument("archive", metavar="NAME@ALIAS|NAME@VERSION")
    down.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    down.add_argument("--force", action="store_true", help="replace files that are there")
    for command in (up, down):
        command.add_argument(
            "--tracking-uri",
            default=os.environ.get(TRACKING_URI, ""),
            metavar="URI",
            help=f"the server's; by default {TRACKING_URI}",
        )


def _publish(options: argparse.Namespace) -> int:
    beside = options.archive.with_name(options.archive.name + ".sig")
    signature = options.signature or (beside if beside.is_file() else None)
    server = MlflowOptions(options.tracking_uri, options.experiment)
    if options.alias is not None:
        check_alias(options.alias)
    made = publish(options.archive, signature, server)
    if options.alias is not None:
        set_alias(made.name, options.alias, made.version, server)
    done = "published" if made.created else "was there already:"
    text = (
        f"{done} {made.name} {made.version}, digest {made.digest}, as MLflow's version"
        f" {made.number}{', signed' if made.signature else ''}"
    )
    if options.alias is not None:
        text += f"; {made.name}@{options.alias} names it"
    tell(options, {**asdict(made), "alias": options.alias}, text)
    return DONE


def _pull(options: argparse.Namespace) -> int:
    name, at, wanted = options.archive.rpartition("@")
    if not at:
        raise UsageError(
            f"expected NAME@ALIAS or NAME@VERSION, as in demo@production, got"
            f" {shortened(options.archive)!r}"
        )
    server = MlflowOptions(options.tracking_uri)
    path = pull(name, wanted, options.output, server, options.force)
    manifest = verify(path)
    tell(options, described(path, manifest), in_words(path, manifest))
    return DONE

"""deploy and rollback: exchanging archives on a server that runs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from archives.commands.command import DONE, Commands, add_command, tell
from archives.commands.registering import moved_values, who_asks
from archives.commands.registry_option import add_registry
from archives.commands.serving import SERVE_FOLDER, exit_on_signals
from archives.errors import UsageError
from archives.location import fetched
from archives.refusals import naming
from archives.serving.deployment import Deployment, DeployOptions, deploy
from archives.serving.rollback import roll_back
from archives.serving.server import READY_SECONDS, Server, expect_running


def add_commands(commands: Commands) -> None:
    """deploy and rollback."""
    deploying = add_command(
        commands,
        "deploy",
        _deploy,
        "have the running server answer with another archive, without losing a request",
    )
    deploying.add_argument(
        "archive", metavar="ARCHIVE", help="a .mar file, its s3:// URI, NAME@ALIAS or NAME@VERSION"
    )
    back = add_command(
        commands,
        "rollback",
        _rollback,
        "deploy the version that an alias stood for before, and move the alias back",
    )
    back.add_argument("reference", metavar="NAME@ALIAS")
    back.add_argument("--why", required=True, metavar="TEXT", help="for the alias' history")
    back.add_argument("--who", metavar="NAME", help="by default this system's user")
    for each in (deploying, back):
        add_registry(each)
        each.add_argument("--folder", type=Path, default=SERVE_FOLDER, help="the server's")
        each.add_argument(
            "--keep", action="store_true", help="leave the old version registered, by its number"
        )
        each.add_argument(
            "--drain-seconds",
            type=_seconds,
            metavar="N",
            help="that the old version may take to answer what it has; by default as long as one of"
            " its batches may take",
        )
        each.add_argument("--timeout", type=_seconds, default=READY_SECONDS, metavar="SECONDS")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"expected seconds from 0 on, got {text}")
    return seconds


def _deploy(options: argparse.Namespace) -> int:
    exit_on_signals()
    server = expect_running(options.folder)
    with tempfile.TemporaryDirectory(prefix="whybox-deploy-") as private:
        archive = fetched(options.archive, Path(private), options.registry).path
        with naming({archive: options.archive}):
            deployment = deploy(server, archive, _chosen(options), _teller(options))
    _report(options, deployment, server)
    return DONE


def _rollback(options: argparse.Namespace) -> int:
    exit_on_signals()
    server = expect_running(options.folder)
    with tempfile.TemporaryDirectory(prefix="whybox-rollback-") as private:
        previous, move_alias = _previous(options, Path(private))
        chosen, teller = _chosen(options), _teller(options)
        deployment = roll_back(server, previous, move_alias, chosen, teller)
    now = deployment.now
    teller(f"{options.reference} stands for {now.name} {now.version} again")
    _report(options, deployment, server)
    return DONE


def _previous(options: argparse.Namespace, folder: Path) -> tuple[Path, Callable[[], object]]:
    """The archive that the alias stood for before, and what moves the alias back to it."""
    from archives.names import Reference, read_reference
    from archives.registry.aliases import said_in_history
    from archives.registry.registry import Promotion, Registry

    reference = read_reference(options.reference)
    if not reference.alias:
        raise UsageError(
            f"{reference}: expected NAME@ALIAS as demo@production: a version is what"
            " it is; to have another one served: python -m archives deploy"
        )
    who = said_in_history("who", who_asks(options))
    why = said_in_history("why", options.why)
    registry = Registry.open(options.registry)
    now = registry.resolve(reference).version
    before = Reference(reference.name, "", registry.previous(reference.name, reference.alias))
    found = registry.resolve(before)
    registry.check_stood(found, reference.alias)
    path = registry.fetch(found, folder).path
    promotion = Promotion(
        before,
        reference.alias,
        who,
        why,
        expect=now,
        back=True,
    )
    # Warns where the store cannot promise that nobody else's promotion was lost.
    return path, lambda: moved_values(registry.promote(promotion))


def _chosen(options: argparse.Namespace) -> DeployOptions:
    return DeployOptions(options.keep, options.drain_seconds, options.timeout)


def _teller(options: argparse.Namespace) -> Callable[[str], None]:
    """Says each step as it happens; --json says them in the end."""
    return (lambda text: None) if options.json else (lambda text: print(text, flush=True))


def _report(options: argparse.Namespace, done: Deployment, server: Server) -> None:
    now, before = done.now, done.before
    values: dict[str, Any] = asdict(done) | {"served": [asdict(each) for each in server.served]}
    name = f"{now.name} {now.version}"
    if not done.changed:
        text = f"{name} is served already, with digest {now.digest}: nothing to do"
    elif before is None:
        text = f"{name} is served now, with digest {now.digest}"
    else:
        rest = (
            "which has ended"
            if done.old_ended
            else f"which answers at /{now.name}/{before.version}"
        )
        text = f"{name} is served instead of {before.version}, {rest}; digest {now.digest}"
    tell(options, values, text)

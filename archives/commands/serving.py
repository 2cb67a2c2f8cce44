"""serve, ready, rotate, page, stop: the life of a TorchServe on this machine."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from archives.commands.command import DONE, RETRY, Commands, add_command, tell
from archives.commands.registry_option import add_registry
from archives.location import fetched
from archives.refusals import naming
from archives.serving.page import show
from archives.serving.server import (
    DEFAULT_CONFIG,
    READY_SECONDS,
    Ports,
    Server,
    ServerError,
    ServerOptions,
    expect_running,
    running,
    start,
)
from archives.serving.tokens import KINDS, rotate
from handlers.endpoint.caller import token_id

SERVE_FOLDER = Path(".serve")


def add_commands(commands: Commands) -> None:
    """serve, ready, rotate, page and stop."""
    serve = add_command(commands, "serve", _serve, "verify archives and start TorchServe on them")
    serve.add_argument(
        "--archive",
        required=True,
        action="append",
        metavar="FILE|URI|NAME@ALIAS",
        dest="archives",
        help="several may be given",
    )
    add_registry(serve)
    serve.add_argument(
        "--digest",
        action="append",
        default=[],
        dest="digests",
        metavar="HEX",
        help="serve no archive of another digest; several may be given, or archive_digests= in the"
        " configuration",
    )
    serve.add_argument(
        "--public-key",
        action="append",
        default=[],
        type=Path,
        dest="public_keys",
        metavar="FILE",
        help="serve no archive without an ARCHIVE.sig by this key; several may be given, or"
        " archive_public_keys= in the configuration, and one of them suffices",
    )
    serve.add_argument("--folder", type=Path, default=SERVE_FOLDER, help="keys, logs and models")
    serve.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="config.properties")
    serve.add_argument(
        "--deployable",
        action="store_true",
        help="let `deploy` and `rollback` exchange archives while the server runs; who has its"
        " management token may then run code as its user",
    )
    serve.add_argument("--free-ports", action="store_true", help="not those of the configuration")
    serve.add_argument("--java", type=Path, metavar="JAVA_HOME", help="else WHYBOX_JAVA_HOME")
    serve.add_argument("--timeout", type=float, default=READY_SECONDS, metavar="SECONDS")
    serve.add_argument("--foreground", action="store_true", help="run until Ctrl-C, then stop")

    change = add_command(commands, "rotate", _rotate, "have the running server make new tokens")
    change.add_argument("--folder", type=Path, default=SERVE_FOLDER)
    change.add_argument("--kind", choices=KINDS, help="by default both")
    change.add_argument(
        "--nginx-include",
        type=Path,
        metavar="FILE",
        help="write the inference token into a line of nginx's configuration, too",
    )

    ready = add_command(
        commands, "ready", _ready, "whether every model of the running server answers"
    )
    ready.add_argument("--folder", type=Path, default=SERVE_FOLDER)

    page = add_command(
        commands, "page", _page, "a page in the browser that asks the running server"
    )
    page.add_argument("--folder", type=Path, default=SERVE_FOLDER, help="the server's")
    page.add_argument("--port", type=int, default=8000, help="0 for one that is free")
    page.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        dest="origins",
        metavar="ORIGIN",
        help="a page elsewhere that may ask, too, as http://127.0.0.1:3000; null for every one that"
        " is opened from disk",
    )

    stop = add_command(commands, "stop", _stop, "stop the TorchServe that serve started")
    stop.add_argument("--folder", type=Path, default=SERVE_FOLDER)


def exit_on_signals() -> None:
    """SIGTERM and SIGHUP end this process as Ctrl-C does, so that it can clean up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # As nohup sets it.
            signal.signal(number, _terminate)


def _serve(options: argparse.Namespace) -> int:
    exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="whybox-serve-") as private:
        places = [
            (fetched(each, Path(private, str(number)), options.registry).path, each)
            for number, each in enumerate(options.archives)
        ]
        with naming(dict(places)):
            server = start(
                ServerOptions(
                    archives=tuple(path for path, _ in places),
                    folder=options.folder,
                    config=options.config,
                    ports=Ports() if options.free_ports else None,
                    java_home=options.java,
                    digests=tuple(options.digests),
                    public_keys=tuple(options.public_keys),
                    deployable=options.deployable,
                )
            )
    try:
        if not options.json:
            print(f"TorchServe has started and loads {', '.join(server.models)} ...", flush=True)
        server.wait_ready(options.timeout)
        tell(options, _described(server), _instructions(server, options.foreground))
        if options.foreground:
            while server.processes():
                time.sleep(0.5)
            raise ServerError(f"TorchServe ended by itself; its logs are in {server.logs}")
    except BaseException:
        server.stop()
        raise
    return DONE


def _described(server: Server) -> dict[str, Any]:
    return {
        "served": [asdict(each) for each in server.served],
        "deployable": server.state.deployable,
        "folder": str(server.folder),
        "inference_url": server.inference_url,
        "management_url": server.management_url,
        "metrics_url": server.metrics_url,
        "header_files": {kind: str(server.header_file(kind)) for kind in KINDS},
    }


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # As shells report it: 143 for SIGTERM.


def _instructions(server: Server, foreground: bool) -> str:
    files = (server.header_file("inference"), server.key_file, server.request_log, server.logs)
    header, keys, requests, logs, folder = map(_shown, (*files, server.folder))
    url = f"{server.inference_url}/explanations/{server.models[0]}"
    python = shlex.quote(_shown(Path(sys.executable)))
    return "\n".join(
        [
            f"serving {', '.join(server.models)} at {server.inference_url}",
            f"  metrics     {server.metrics_url}/metrics, which docs/grafana.json shows",
            f"  management  {server.management_url}",
            f"  tokens      {keys} (only you can read it); in logs inference is"
            f" {token_id(server.inference_token)}",
            f"  requests    {requests}: who asked for what, JSON, one a line",
            f"  logs        {logs}",
            f"  page        {python} -m archives page --folder {shlex.quote(folder)}",
            f"  ready       {python} -m archives ready --folder {shlex.quote(folder)}",
            "  try         with a picture.jpg of yours:",
            f"    curl --header @{shlex.quote(header)} --form picture=@picture.jpg {url}",
            "  stop        Ctrl-C"
            if foreground
            else f"  stop        {python} -m archives stop --folder {shlex.quote(folder)}",
        ]
    )


def _shown(path: Path) -> str:
    """As a person would type it here: relative if that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def _rotate(options: argparse.Namespace) -> int:
    server = expect_running(options.folder)
    kinds = (options.kind,) if options.kind else KINDS
    valid_until = rotate(server, kinds, options.nginx_include)
    lines = [
        f"new: {' and '.join(kinds)} token, until {valid_until:%Y-%m-%d %H:%M} UTC; the old is"
        " refused now"
    ]
    lines += [f"  curl        --header @{_shown(server.header_file(kind))}" for kind in kinds]
    if "inference" in kinds:
        lines.append(f"  logs        name it {token_id(server.inference_token)}")
    if options.nginx_include:
        lines.append(f"  nginx       {_shown(options.nginx_include)} has it; now: nginx -s reload")
    values = {"kinds": list(kinds), "valid_until": valid_until.isoformat()}
    tell(options, values, "\n".join(lines))
    return DONE


def _ready(options: argparse.Namespace) -> int:
    server = running(options.folder)
    if server is None:
        tell(options, {"models": []}, f"no server runs in {options.folder}")
        return RETRY
    waiting = server.waiting()
    models = [
        {"name": each.name, "version": each.version, "ready": each not in waiting}
        for each in server.served
    ]
    lines = [
        f"{each['name']} {each['version']}: {'ready' if each['ready'] else 'not ready'}"
        for each in models
    ]
    tell(options, {"models": models}, "\n".join(lines))
    return RETRY if waiting else DONE


def _page(options: argparse.Namespace) -> int:
    def began(url: str, header_file: Path) -> None:
        values = {"url": url, "header_file": str(header_file)}
        tell(options, values, f"open {url}; the token is in {header_file}")

    show(options.folder, options.port, options.origins, began)
    return DONE


def _stop(options: argparse.Namespace) -> int:
    server = running(options.folder)
    if server is None:
        tell(options, {"stopped": []}, f"no server runs in {options.folder}")
        return DONE
    server.stop()
    stopped = list(server.models)
    tell(options, {"stopped": stopped}, f"stopped the server of {', '.join(stopped)}")
    return DONE

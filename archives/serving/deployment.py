"""Exchanging an archive on a server that runs, without losing a request.

    server = expect_running(Path(".serve"))
    deployment = deploy(server, Path("model_store/demo.mar"), DeployOptions())

The new version is registered beside the old one, answers its golden sample through the endpoint,
and only then becomes what is answered where a request names no version; the old one ends when it
has answered all that it had.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from archives.errors import CommandError, ConflictError, UsageError
from archives.golden import Golden, read_golden
from archives.refusals import naming
from archives.serving.draining import drained
from archives.serving.endpoint_check import NoAnswerError, check
from archives.serving.leftovers import end_version, exchanged, settle
from archives.serving.management import Management, ManagementError
from archives.serving.served import Served, copy_archive
from archives.serving.server import READY_SECONDS, Server, expect_running
from archives.serving.server_config import allowed_digests, public_key_files
from archives.signatures.signing import read_public_keys

LOCK = "deploy.lock"
POLL_SECONDS = 0.1
MOST_REASONS = 3


class DeployError(CommandError):
    """The new version does not serve, or the old one could not be ended; the message says which
    of them are served."""


class DeployConflictError(ConflictError):
    """Another deploy is at work on this server, or it serves another archive of this version."""


class NotDeployableError(UsageError):
    """The server was started without --deployable."""


@dataclass(frozen=True)
class DeployOptions:
    """How to deploy.

    keep: leave the old version registered, for requests that name it.
    drain_seconds: that the old version may take to answer what it has, None for as long as a batch
        may take there. If that is not enough it stays registered, until the next deploy.
    ready_seconds: that the new version may take to load, and again to explain its golden sample.
    """

    keep: bool = False
    drain_seconds: float | None = None
    ready_seconds: float = READY_SECONDS


@dataclass(frozen=True)
class Step:
    """name: what was done. seconds: that it took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Deployment:
    """What came of it.

    now: answered where a request names no version. before: what was, None for a new name.
    changed: False if `now` was served so already. old_ended: whether `before` is gone.
    """

    now: Served
    before: Served | None
    changed: bool
    old_ended: bool
    steps: tuple[Step, ...]


def _silent(text: str) -> None:
    pass


def deploy(
    server: Server,
    archive: Path,
    options: DeployOptions,
    tell: Callable[[str], None] = _silent,
) -> Deployment:
    """Has `server` answer with `archive`, a .mar file, instead of what it serves under that name;
    besides, if it serves nothing under it.

    tell: is told each step when it is done, a line. Raises NotDeployableError, DeployConflictError;
    ArchiveError or UnsafeArchiveError as `verify` does, also for a digest that is not configured;
    OtherAnswerError, NoAnswerError, ManagementError and DeployError. After any of them, and any
    interruption, what was served is served, but for a DeployError that says otherwise.
    """
    with _alone(server.folder):
        server.state = expect_running(server.folder).state  # another deploy may have changed it
        if not server.state.deployable:
            raise NotDeployableError(
                f"the server in {server.folder} takes no other archives while it runs; stop it and"
                " start it so: python -m archives serve --deployable --archive FILE"
            )
        return _Deploy(server, options, tell).run(archive)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    # The kernel ends the lock with the process that has it, however that ends.
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeployConflictError(
                f"another deploy is at work on the server in {folder}; wait for its end"
            ) from error
        yield
    finally:
        os.close(descriptor)


class _Registration(threading.Thread):
    """In a thread, so that whoever is interrupted while TorchServe loads the model still learns
    whether it has registered it."""

    def __init__(self, management: Management, new: Served, patience: float) -> None:
        super().__init__(daemon=True)
        self._asked = (management, new, patience)
        self.error: CommandError | None = None

    def run(self) -> None:
        management, new, patience = self._asked
        try:
            management.register(new.name, new.file, patience)
        except CommandError as error:
            self.error = error

    def wait(self) -> None:
        """Raises what TorchServe said against it."""
        while self.is_alive():
            self.join(POLL_SECONDS)
        if self.error:
            raise self.error


@dataclass
class _Deploy:
    server: Server
    options: DeployOptions
    tell: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)
    registration: _Registration | None = None

    def run(self, archive: Path) -> Deployment:
        settle(self.server, self._drain_seconds, self.tell)
        new, golden = self._copy(archive)
        served = self.server.served
        of_name = [each for each in served if each.name == new.name]
        old = of_name[0] if of_name else None
        there = next((each for each in of_name if each.version == new.version), None)
        try:
            if there and there.digest != new.digest:
                raise DeployConflictError(
                    f"{new.name} {new.version} is served with digest {there.digest[:12]}...,"
                    f" {archive} has {new.digest[:12]}...; build it with another --version"
                )
            if not there:
                self._register(new)
            if there is None or there != old:
                self._check(there or new, golden)
            if old and there != old:
                with self._step(f"{new.name} {new.version} is the default"):
                    self.server.management.set_default(new.name, new.version)
        except BaseException:
            self._withdraw(new)
            raise
        if there:
            self._file(new).unlink()
            new = there
        if new == old:
            return Deployment(new, old, False, False, tuple(self.steps))
        self.server.record(exchanged(served, new, old, self.options.keep))
        ended = old is not None and not self.options.keep and self._end(new, old)
        return Deployment(new, old, True, ended, tuple(self.steps))

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._did(name, began)

    def _did(self, name: str, began: float) -> None:
        self.steps.append(Step(name, round(time.monotonic() - began, 3)))
        self.tell(f"{self.steps[-1].seconds:6.1f} s  {name}")

    def _file(self, served: Served) -> Path:
        return self.server.model_store / served.file

    def _copy(self, archive: Path) -> tuple[Served, Golden]:
        # What the configuration allows may have grown since the start.
        state = self.server.state
        config = Path(state.config)
        digests = (*state.digests, *allowed_digests(config))
        keys = read_public_keys([*map(Path, state.public_keys), *public_key_files(config)])
        copy = self.server.model_store / f"{uuid.uuid4().hex}.mar"
        try:
            began = time.monotonic()
            new = copy_archive(archive, copy, digests, keys)
            with naming({copy: str(archive)}):
                golden = read_golden(copy)
            self._did(f"{new.name} {new.version} is verified", began)
            return new, golden
        except BaseException:
            copy.unlink(missing_ok=True)
            raise

    def _register(self, new: Served) -> None:
        management, patience = self.server.management, self.options.ready_seconds
        known = self.server.reasons()
        with self._step(f"{new.name} {new.version} is loaded and has explained a first picture"):
            try:
                self.registration = _Registration(management, new, patience)
                self.registration.start()
                self.registration.wait()
                deadline = time.monotonic() + patience
                while not any(each.ready for each in management.versions(new.name, new.version)):
                    if time.monotonic() > deadline:
                        raise ManagementError(f"no worker is ready after {patience:.0f} s")
                    time.sleep(POLL_SECONDS)
            except ManagementError as error:
                why = [each for each in self.server.reasons() if each not in known]
                text = "; ".join([str(error), *why[:MOST_REASONS]])
                raise DeployError(
                    f"{new.name} {new.version} does not load: {text}; logs: {self.server.logs}"
                ) from error

    def _check(self, new: Served, golden: Golden) -> None:
        server, patience = self.server, self.options.ready_seconds
        with self._step("its golden sample comes out the same through the endpoint"):
            digest = server.management.digest(new.name, new.version, patience)
            if digest != new.digest:
                raise NoAnswerError(
                    f"the worker of {new.name} {new.version} has loaded digest {digest!r}; expected"
                    f" {new.digest}: somebody else changes what this server has"
                )
            token = server.inference_token
            check(server.inference_url, token, new.name, new.version, golden, patience)

    def _withdraw(self, new: Served) -> None:
        """What this deploy has brought goes, unless it is the default already: the next deploy
        finds that, and takes it up."""
        try:
            while self.registration:
                if self.server.management.versions(new.name, new.version):
                    end_version(self.server, new)
                    self.tell(f"{new.name} {new.version} is unregistered again")
                    return
                if not self.registration.is_alive():
                    break
                time.sleep(POLL_SECONDS)
            self._file(new).unlink()
        except CommandError as error:
            self.tell(f"{new.name} {new.version} is still registered: {error}")

    def _end(self, new: Served, old: Served) -> bool:
        """Whether it did: not if the old version has more to do than there is time for."""
        seconds = self._drain_seconds(old)
        began = time.monotonic()
        try:
            if not drained(self.server, old.name, old.version, seconds):
                self._did(
                    f"{old.name} {old.version} is still asked after {seconds:.0f} s: it stays"
                    " registered until the next deploy",
                    began,
                )
                return False
            self._did(f"{old.name} {old.version} has answered all that it had", began)
            with self._step(f"{old.name} {old.version} is unregistered"):
                end_version(self.server, old)
        except CommandError as error:
            raise DeployError(
                f"{new.name} {new.version} is what is served now, but {old.version} could not be"
                f" ended: {error}; the next deploy tries again"
            ) from error
        return True

    def _drain_seconds(self, old: Served) -> float:
        if self.options.drain_seconds is not None:
            return self.options.drain_seconds
        found = self.server.management.versions(old.name, old.version)
        return max((each.response_seconds for each in found), default=0.0)

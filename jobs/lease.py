"""Who may write to an output: a lease in the store, so that two runs never mix their results.

Whoever works on a part of a job holds an object `leases/PART.json` and changes it every few
seconds. A second runner that finds one is told; one whose holder is dead (looked up, on the same
machine) or no longer changes it (watched, with no clock compared) is taken over. Stores without
conditional writes let several create the object at once: the last to write holds it, and the
others find out at their next look, which comes before anything is committed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from archives.errors import CommandError, ConflictError, MissingObjectError, StoreDownError
from archives.stores.store import Store
from jobs.record import now

FOLDER = "leases/"
END = ".json"
ALL = "all"
LISTING = "listing"
AUDIT = "audit"  # around all steps of an audit, which hold the others themselves
BEAT_SECONDS = 15.0
BEATS_MISSED = 3  # after which a holder counts as gone
CLAIM = 0  # the beat of a lease that is not held yet
LONGEST_STEP_BACK = 0.2  # seconds


@dataclass(frozen=True)
class Holder:
    """What a lease says of its holder.

    who: host and process. part: "all", "listing", "audit" or "2-of-8". since: UTC, ISO 8601.
    token: one of its own for each run. beat: counts up from 1; 0 as long as it is a claim.
    machine: the kernel's boot and the process's namespace. pid, started: the process there.
    """

    who: str
    part: str
    since: str
    token: str
    beat: int
    machine: str
    pid: int
    started: str

    @classmethod
    def this_process(cls, part: str) -> Holder:
        pid = os.getpid()
        who = f"{socket.gethostname()}, process {pid}"
        return cls(who, part, now(), uuid.uuid4().hex, CLAIM, _machine(), pid, _started(pid))

    def is_dead(self) -> bool:
        """Whether the process is known to be gone: only this machine's can be."""
        return self.machine == _machine() != "" and _started(self.pid) != self.started

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    def __str__(self) -> str:
        part = "" if self.part == ALL else f" on part {self.part}"
        return f"{self.who}, at work{part} since {self.since}"


def part_name(shard: Sequence[int] | None) -> str:
    """A lease's part for a --shard (index, count)."""
    return ALL if shard is None else f"{shard[0]}-of-{shard[1]}"


def holders(output: Store, part: str | None = None) -> list[Holder]:
    """Everyone who holds a lease (of a part that has work in common with `part`, if one is given),
    dead or alive, by part."""
    with contextlib.suppress(MissingObjectError):
        keys = sorted(each.key for each in output.entries(FOLDER) if each.key.endswith(END))
        names = [key[len(FOLDER) : -len(END)] for key in keys]
        asked = [name for name in names if part is None or overlap(name, part)]
        found = [_read(output, f"{FOLDER}{name}{END}") for name in asked]
        return [each for each in found if each is not None]
    return []


class Lease:
    """Held from `with` to its end; raises ConflictError, with who holds it, if it is taken.

    wait: for someone who lists the input, as long as that takes, instead.
    """

    def __init__(
        self, output: Store, part: str, wait: bool = False, beat_seconds: float = BEAT_SECONDS
    ) -> None:
        self.output = output
        self.holder = Holder.this_process(part)
        self.key = f"{FOLDER}{part}{END}"
        self.beat_seconds = beat_seconds
        self._wait = wait
        self._over = threading.Event()
        self._lost: CommandError | None = None
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        while not self._take():
            pass
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # A store that is down must not hold up the end; the next run sees that this one is gone.
        release = threading.Thread(target=self._release, daemon=True)
        release.start()
        release.join(timeout=3)

    def check(self) -> None:
        """Raises ConflictError if somebody else has taken over, StoreDownError if the store has not
        let this run say for so long that it is alive that somebody might."""
        if self._lost is not None:
            raise self._lost

    def _take(self) -> bool:
        """Claims first, and holds if nobody else has claimed: of two that come at once at most one
        sees no other, and none that comes later overlooks it."""
        for other in self._others():
            self._pass(other)
        if not self.output.create(self.key, self.holder.to_json()):
            return False  # someone was quicker
        if self._others() or not _holds(self.output, self.key, self.holder.token):
            if _holds(self.output, self.key, self.holder.token):
                self.output.delete(self.key)
            time.sleep(random.uniform(0, LONGEST_STEP_BACK))  # so that two do not dance for ever
            return False
        self._write_beat()
        if self._others():  # the claim was taken for abandoned meanwhile
            self.output.delete(self.key)
            return False
        return True

    def _others(self) -> list[Holder]:
        found = holders(self.output, self.holder.part)
        return [each for each in found if each.token != self.holder.token]

    def _pass(self, other: Holder) -> None:
        """Waits for a claim to be decided, and removes a lease whose holder is gone. Raises
        ConflictError if it is at work."""
        key = f"{FOLDER}{other.part}{END}"
        watched, step = 0.0, min(self.beat_seconds, 1.0)
        patient = self._wait and other.part == LISTING
        while not other.is_dead():
            if other.beat != CLAIM and not patient and other.machine == _machine() != "":
                raise ConflictError(self._told(other))
            pause = LONGEST_STEP_BACK if other.beat == CLAIM else step
            time.sleep(pause)
            watched += pause
            seen = _read(self.output, key)
            if seen is None or seen.token != other.token:
                return  # it has ended
            if seen.beat != other.beat:
                if not patient and other.beat != CLAIM:
                    raise ConflictError(self._told(other))
                other, watched = seen, 0.0
            if watched >= BEATS_MISSED * self.beat_seconds:
                break
        if _holds(self.output, key, other.token):
            self.output.delete(key)

    def _told(self, other: Holder) -> str:
        return (
            f"{self.output.uri} is being written by another run: {other}; wait for it, end it, or"
            " choose another output. Nothing was changed"
        )

    def _beat(self) -> None:
        heard = time.monotonic()
        pause = min(1.0, self.beat_seconds)  # once soon, for stores that let several create it
        while not self._over.wait(pause):
            pause = self.beat_seconds
            try:
                if not _holds(self.output, self.key, self.holder.token):
                    self._lost = taken(self.output, self.key)
                    return
                if not self._over.is_set():
                    self._write_beat()
                heard = time.monotonic()
            except StoreDownError as error:
                if time.monotonic() - heard > BEATS_MISSED * self.beat_seconds:
                    self._lost = error
                    return
            except CommandError as error:
                self._lost = error
                return

    def _write_beat(self) -> None:
        self.holder = replace(self.holder, beat=self.holder.beat + 1)
        self.output.write(self.key, self.holder.to_json())

    def _release(self) -> None:
        self._thread.join(timeout=2)  # its last beat must not come after the removal
        # Whoever comes next looks whether this process is alive, so nothing depends on it.
        with contextlib.suppress(CommandError):
            if _holds(self.output, self.key, self.holder.token):
                self.output.delete(self.key)


def guard(output: Store, key: str, token: str) -> Callable[[], None]:
    """A check that the run of this token still holds the lease; it raises ConflictError if not."""

    def check() -> None:
        if not _holds(output, key, token):
            raise taken(output, key)

    return check


def taken(output: Store, key: str) -> ConflictError:
    """What a run is told that has lost its lease."""
    other = _read(output, key)
    return ConflictError(
        f"{output.uri} has been taken over by another run"
        + (f" ({other})" if other else f" ({key} is gone)")
        + "; this one has ended, what it had committed stays"
    )


def _holds(output: Store, key: str, token: str) -> bool:
    found = _read(output, key)
    return found is not None and found.token == token


def _read(output: Store, key: str) -> Holder | None:
    try:
        values = json.loads(output.read(key))
        return Holder(**values)
    except MissingObjectError:
        return None
    except (ValueError, TypeError) as error:
        raise ConflictError(
            f"{output.uri}/{key} is no lease of this version ({error}); remove it if no run is at"
            " work here"
        ) from error


def overlap(one: str, other: str) -> bool:
    """Whether two parts have work in common."""
    if AUDIT in (one, other):
        return one == other
    if one == other or ALL in (one, other):
        return True
    if LISTING in (one, other):
        return False
    return one.partition("-of-")[2] != other.partition("-of-")[2]


def _machine() -> str:
    """Processes of one name here share their ids; "" where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; "" if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]

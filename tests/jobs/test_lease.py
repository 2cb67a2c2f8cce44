"""Who may write: leases that are held, refused, taken over and lost. Time is the tests' own."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from archives.errors import CommandError, ConflictError, StoreDownError
from archives.stores.folder import FolderStore
from archives.stores.opening import open_store
from archives.stores.store import Store
from jobs import lease
from jobs.errors import Interrupted
from jobs.lease import (
    ALL,
    BEATS_MISSED,
    CLAIM,
    LISTING,
    Holder,
    Lease,
    guard,
    holders,
    part_name,
    taken,
)

BEAT = 0.02
GONE = 2**22 + 1  # no process has this id


def elsewhere(part: str = ALL) -> Holder:
    """A holder of another machine, of which nothing can be looked up."""
    return replace(here(part), machine="another", who="far, process 7")


def here(part: str = ALL) -> Holder:
    """A holder that is this process."""
    return replace(Holder.this_process(part), beat=1)


def put(store: Store, holder: Holder) -> None:
    store.write(f"leases/{holder.part}.json", holder.to_json())


def tokens(store: Store) -> list[str]:
    return [each.token for each in holders(store)]


def beating(store: Store, holder: Holder) -> Callable[[float], None]:
    """Instead of sleeping: the holder says that it is alive."""
    beats = iter(range(2, 1_000))
    return lambda _: put(store, replace(holder, beat=next(beats)))


def use_time(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., Any]) -> None:
    real = {"sleep": time.sleep, "monotonic": time.monotonic}
    monkeypatch.setattr(lease, "time", SimpleNamespace(**{**real, **functions}))


def lost(held: Lease) -> CommandError:
    """What a lease's check raises, sooner or later."""
    while True:
        try:
            held.check()
        except CommandError as error:
            return error
        time.sleep(0.01)


def test_a_lease_says_who_holds_it_and_ends_with_its_block(place: str) -> None:
    output = open_store(place)
    with Lease(output, part_name((2, 8))) as held:
        assert tokens(output) == [held.holder.token]
        assert (held.holder.part, held.holder.pid) == ("2-of-8", os.getpid())
        held.check()
        guard(output, held.key, held.holder.token)()
    assert holders(output) == []
    with Lease(output, part_name(None)) as again:
        assert again.key == "leases/all.json"
        assert again.holder.token != held.holder.token


@pytest.mark.parametrize(("part", "shown"), [("all", ""), ("2-of-8", " on part 2-of-8")])
def test_a_second_run_is_told_and_the_first_goes_on(place: str, part: str, shown: str) -> None:
    output = open_store(place)
    with Lease(output, part) as first:
        who = f"{socket.gethostname()}, process {os.getpid()}, at work{shown} since "
        with pytest.raises(ConflictError) as told, Lease(output, part):
            pass
        assert f"another run: {who}{first.holder.since}; wait for it, end it" in str(told.value)
        first.check()
        assert tokens(output) == [first.holder.token]


@pytest.mark.parametrize("values", [{"pid": GONE}, {"started": "1"}])
def test_a_dead_holder_of_this_machine_is_taken_over_at_once(
    place: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = open_store(place)
    dead = replace(here(), **values)
    assert dead.is_dead()
    put(output, dead)
    slept: list[float] = []
    use_time(monkeypatch, sleep=slept.append)
    with Lease(output, ALL) as held:
        assert tokens(output) == [held.holder.token]
    assert slept == []


def test_a_holder_elsewhere_that_beats_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, other = FolderStore(tmp_path), elsewhere()
    assert not other.is_dead()
    put(output, other)
    use_time(monkeypatch, sleep=beating(output, other))
    with pytest.raises(ConflictError, match="far, process 7, at work since"), Lease(output, ALL):
        pass
    assert holders(output) == [replace(other, beat=2)]


def test_a_holder_elsewhere_that_no_longer_beats_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = FolderStore(tmp_path)
    put(output, elsewhere())
    slept: list[float] = []
    use_time(monkeypatch, sleep=slept.append)
    with Lease(output, ALL, beat_seconds=7.5) as held:
        assert tokens(output) == [held.holder.token]
    assert sum(slept) == pytest.approx(BEATS_MISSED * 7.5, abs=1.0)


@pytest.mark.parametrize("make", [elsewhere, here])
def test_who_lists_is_waited_for(
    make: Callable[[str], Holder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, other = FolderStore(tmp_path), make(LISTING)
    put(output, other)
    beat, slept = beating(output, other), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        beat(seconds) if len(slept) < 100 else output.delete("leases/listing.json")

    use_time(monkeypatch, sleep=sleep)
    with Lease(output, LISTING, wait=True) as held:
        assert tokens(output) == [held.holder.token]
    assert len(slept) == 100


def test_a_part_does_not_wait_for_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError("it waits, for hours perhaps, and says nothing")

    output = FolderStore(tmp_path)
    with Lease(output, ALL) as whole:
        use_time(monkeypatch, sleep=sleep)
        with pytest.raises(ConflictError, match="another run"), Lease(output, LISTING, wait=True):
            pass
        assert tokens(output) == [whole.holder.token]


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("all", "all", True),
        ("all", "listing", True),
        ("all", "2-of-8", True),
        ("listing", "listing", True),
        ("listing", "2-of-8", False),
        ("2-of-8", "2-of-8", True),
        ("2-of-8", "3-of-8", False),
        ("2-of-8", "2-of-4", True),
        ("0-of-8", "3-of-4", True),  # of other counts: not worked out
    ],
)
def test_parts_that_have_work_in_common(
    one: str, other: str, overlap: bool, tmp_path: Path
) -> None:
    for first, second in ((one, other), (other, one)):
        with Lease(FolderStore(tmp_path), first):
            try:
                with Lease(FolderStore(tmp_path), second):
                    assert not overlap
            except ConflictError:
                assert overlap


class Meanwhile(FolderStore):
    """Lets something else happen right before its first `create`."""

    def __init__(self, root: Path, first: Callable[[], object]) -> None:
        super().__init__(root)
        self.first: Callable[[], object] | None = first

    def create(self, key: str, data: bytes) -> bool:
        first, self.first = self.first, None
        if first:
            first()
        return super().create(key, data)


@pytest.mark.parametrize("since", ["2000-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"])
def test_who_comes_between_another_ones_look_and_its_lease_stays(
    since: str, tmp_path: Path
) -> None:
    """However long the other has been there: who has looked twice does not look again."""
    first = Lease(FolderStore(tmp_path), ALL)
    second = Lease(Meanwhile(tmp_path, first.__enter__), "0-of-2")
    second.holder = replace(second.holder, since=since)
    with pytest.raises(ConflictError, match="another run"), second:
        pass
    assert tokens(FolderStore(tmp_path)) == [first.holder.token]
    first.__exit__()


@pytest.mark.parametrize("parts", [["all"] * 4, ["all", "0-of-1", "0-of-2", "0-of-3"]])
def test_of_several_at_once_exactly_one_stays(place: str, parts: list[str]) -> None:
    output = open_store(place)
    together, done = threading.Barrier(len(parts)), threading.Barrier(len(parts))

    def attempt(part: str) -> str | None:
        together.wait()
        try:
            with Lease(output, part) as held:
                done.wait()
                held.check()
                return held.holder.token if len(holders(output)) == 1 else "mixed"
        except ConflictError:
            done.wait()
            return None

    with ThreadPoolExecutor(len(parts)) as pool:
        tokens = [token for token in pool.map(attempt, parts) if token]
    assert len(tokens) == 1
    assert tokens != ["mixed"]
    assert holders(output) == []


@pytest.mark.parametrize("make", [elsewhere, here])
@pytest.mark.parametrize("decided", ["it stays", "it steps back", "it is gone"])
def test_a_claim_is_waited_for_until_it_is_decided(
    make: Callable[[str], Holder],
    decided: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = FolderStore(tmp_path)
    other = replace(make("0-of-2"), beat=CLAIM)
    put(output, other)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) >= 3 and decided == "it stays":
            put(output, replace(other, beat=len(slept)))
        if len(slept) == 3 and decided == "it steps back":
            output.delete("leases/0-of-2.json")

    use_time(monkeypatch, sleep=sleep)
    if decided == "it stays":
        with pytest.raises(ConflictError, match="at work on part 0-of-2"), Lease(output, ALL):
            pass
        assert tokens(output) == [other.token]
    else:
        with Lease(output, ALL) as held:
            assert tokens(output) == [held.holder.token]
    assert len(slept) >= 3


class Loose(FolderStore):
    """Tells every writer that nothing was there, as stores without conditional writes do."""

    def create(self, key: str, data: bytes) -> bool:
        self.write(key, data)
        return True


def test_where_any_may_create_the_last_holds_and_the_other_finds_out(tmp_path: Path) -> None:
    output = Loose(tmp_path)
    with Lease(output, ALL, beat_seconds=BEAT) as first:
        may_write = guard(output, first.key, first.holder.token)
        may_write()
        second = elsewhere()
        output.create("leases/all.json", second.to_json())
        with pytest.raises(ConflictError, match=r"taken over by another run \(far, process 7, at"):
            may_write()
        assert str(lost(first)) == str(taken(output, first.key))
    assert holders(output) == [second]  # not the first one's to remove


def test_a_lease_that_somebody_removed_is_lost(tmp_path: Path) -> None:
    output = FolderStore(tmp_path)
    with Lease(output, ALL, beat_seconds=BEAT) as held:
        output.delete(held.key)
        with pytest.raises(ConflictError, match=r"taken over .*\(leases/all.json is gone\)"):
            guard(output, held.key, held.holder.token)()
        assert isinstance(lost(held), ConflictError)


def test_a_holder_beats(tmp_path: Path) -> None:
    output = FolderStore(tmp_path)
    with Lease(output, ALL, beat_seconds=BEAT) as held:
        while holders(output)[0].beat < 3:
            time.sleep(0.01)
        held.check()
        assert holders(output)[0].token == held.holder.token


@pytest.mark.parametrize("data", [b"no JSON", b"[]", b"{}", b'{"who": "me", "colour": "red"}'])
def test_what_is_no_lease_is_a_conflict_and_stays(tmp_path: Path, data: bytes) -> None:
    output = FolderStore(tmp_path)
    output.write("leases/all.json", data)
    said = r"leases/all.json is no lease of this version .*; remove it if no run is at work"
    with pytest.raises(ConflictError, match=said), Lease(output, ALL):
        pass
    assert output.read("leases/all.json") == data


class Failing(FolderStore):
    """Does not answer `failures` reads, each of which takes a beat and a half."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.failures, self.now = 0, 0.0

    def read(self, key: str) -> bytes:
        if self.failures:
            self.failures -= 1
            self.now += 1.5 * BEAT
            raise StoreDownError("the store does not answer")
        return super().read(key)


def test_a_store_that_is_down_for_a_moment_is_waited_for_and_one_that_stays_so_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Failing(tmp_path)
    use_time(monkeypatch, monotonic=lambda: output.now)
    with Lease(output, ALL, beat_seconds=BEAT) as held:
        output.failures = 2
        while holders(FolderStore(tmp_path))[0].beat < 2:
            time.sleep(0.01)
        assert output.failures == 0
        held.check()
        output.failures = 1_000
        assert str(lost(held)) == "the store does not answer"
        assert isinstance(lost(held), StoreDownError)


def test_a_signal_while_a_lease_is_given_back_is_not_swallowed(tmp_path: Path) -> None:
    """Else a part that was told to end while another listed would go on."""
    ended = threading.Event()

    class Slow(FolderStore):
        def delete(self, key: str) -> None:
            time.sleep(0.2)  # by then it is waited for
            os.kill(os.getpid(), signal.SIGUSR1)
            ended.wait(10)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted), Lease(Slow(tmp_path), LISTING):
            pass
    finally:
        ended.set()
        signal.signal(signal.SIGUSR1, before)

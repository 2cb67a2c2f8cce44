"""One contract for every store: folders, moto, and OpenStack Swift with real signatures."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from archives.errors import MissingObjectError, StoreDownError, StoreRefusedError
from archives.stores.opening import open_store
from archives.stores.s3 import FIRST_DELAY, LONGEST_DELAY
from archives.stores.store import S3Settings, Store
from tests.faulty import LOST_ANSWER, Faults, FaultyProxy

if TYPE_CHECKING:  # pytest is the first to import a plugin
    from tests.swift import Swift

pytest_plugins = ("tests.swift",)

THREADS = 16
AWKWARD = [
    " leading and trailing ",
    "a+b&c=d.jpg",
    "a/b/c/d/e/f.jpg",
    "hash#1?query",
    "long/" + "x" * 200 + "/" + "y" * 200,
    "percent%20%zz.jpg",
    "quote'\"<>&.jpg",
    "zwölf é 猫.jpg",
]
EVERY_CALL: dict[str, Callable[[Store, Path], object]] = {
    "list": lambda store, _: list(store.entries()),
    "find": lambda store, _: store.find("a"),
    "read": lambda store, _: store.read("a"),
    "write": lambda store, _: store.write("b", b"1"),
    "create": lambda store, _: store.create("b", b"1"),
    "delete": lambda store, _: store.delete("a"),
    "write_file": lambda store, path: store.write_file("b", path),
}
CHANGES = ["write", "create", "delete", "write_file"]
BUCKETS = {"moto": "bucket", "swift": "swift_bucket"}


@pytest.fixture(params=BUCKETS)
def any_bucket(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(BUCKETS[request.param]))


@pytest.fixture(params=["folder", *BUCKETS])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "place")
    return f"{request.getfixturevalue(BUCKETS[request.param])}/some/prefix"


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    path = tmp_path / "small file"
    path.write_bytes(b"from a file")
    return path


def together(call: Callable[[int], Any], count: int) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, range(count)))


@pytest.mark.parametrize(
    ("each", "page"),
    [(10, 7), (10, 40), pytest.param(300, 1000, marks=pytest.mark.full)],
)
def test_a_listing_is_in_order_over_its_pages(
    place: str, each: int, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archives.stores.s3.PAGE", page)
    store = open_store(place)
    # Where folders and names meet: "-" and "." come before the slash, "0" after it.
    keys = [f"{part}/{number:04d}" for part in ("a", "a-", "a.b", "a0") for number in range(each)]
    together(lambda number: store.write(keys[number], b"1"), len(keys))
    assert [each.key for each in store.entries()] == sorted(keys)
    assert [each.key for each in store.entries("a-/")] == keys[each : 2 * each]
    assert [each.key for each in store.below("a-/").entries()] == [
        key.removeprefix("a-/") for key in keys[each : 2 * each]
    ]


def test_awkward_keys_and_empty_objects(place: str, small_file: Path) -> None:
    store = open_store(place)
    for key in AWKWARD:
        store.write(key, key.encode())
    assert [each.key for each in store.entries()] == sorted(AWKWARD)
    assert [store.read(key) for key in AWKWARD] == [key.encode() for key in AWKWARD]
    found = [store.find(key) for key in AWKWARD]
    assert [each and each.size for each in found] == [len(key.encode()) for key in AWKWARD]
    for key in AWKWARD:
        assert not store.create(key, b"")
        store.delete(key)
        assert store.create(key, b"")
        assert store.read(key) == b""
        store.write_file(key, small_file)
        assert store.read(key) == b"from a file"


def test_what_is_not_there(place: str) -> None:
    store = open_store(place)
    store.write("a/b", b"1")
    for key in ("missing", "a", "missing/deep", "a/b/c"):
        store.delete(key)
        assert store.find(key) is None
        with pytest.raises(MissingObjectError):
            store.read(key)
    store.delete("a/b")
    assert list(store.entries()) == []


def test_only_the_first_creates(place: str) -> None:
    store = open_store(place)
    assert store.create("deep/lock", b"one")
    assert not store.create("deep/lock", b"two")
    assert store.create("deep/lock", b"one")  # as a request that was sent twice
    assert store.read("deep/lock") == b"one"
    store.delete("deep/lock")
    assert store.create("deep/lock", b"two")


def test_a_race_has_a_winner(place: str, request: pytest.FixtureRequest) -> None:
    store = open_store(place)
    bodies = [bytes([number]) * 10_000 for number in range(8)]
    barrier = threading.Barrier(len(bodies))

    def run(number: int) -> bool:
        barrier.wait()
        return store.create("lock", bodies[number])

    won = together(run, len(bodies))
    winners = [body for body, created in zip(bodies, won, strict=True) if created]
    assert store.read("lock") in winners
    assert len(winners) == 1 or "swift" in request.node.callspec.id  # it looks, then writes


@pytest.mark.parametrize("size", [0, 20 * 2**20 + 3])
def test_files_of_any_size(place: str, tmp_path: Path, size: int) -> None:
    path = tmp_path / "local"
    path.write_bytes(os.urandom(size))
    store = open_store(place)
    store.write("deep/copy", b"before")
    store.write_file("deep/copy", path)
    assert store.read("deep/copy") == path.read_bytes()
    assert [(each.key, each.size) for each in store.entries()] == [("deep/copy", size)]
    with pytest.raises(FileNotFoundError):
        store.write_file("deep/copy", tmp_path / "missing")


def test_a_bucket_that_is_not_there(any_bucket: str, small_file: Path) -> None:
    store = open_store("s3://no-such-bucket/p")
    for call in EVERY_CALL.values():
        with pytest.raises(StoreRefusedError, match="there is no bucket 'no-such-bu") as caught:
            call(store, small_file)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("wrong", [{"secret": "wrong"}, {"access_key": "test:nobody"}])
def test_wrong_keys(
    aws: pytest.MonkeyPatch,
    swift: Swift,
    swift_bucket: str,
    wrong: dict[str, str],
    small_file: Path,
) -> None:
    for name, value in swift.environment(replace(swift.owner, **wrong)).items():
        aws.setenv(name, value)
    store = open_store(swift_bucket)
    for call in EVERY_CALL.values():
        with pytest.raises(StoreRefusedError, match="the credentials are wrong") as caught:
            call(store, small_file)
        assert caught.value.exit_code == 2


def test_who_may_only_read(
    aws: pytest.MonkeyPatch, swift: Swift, swift_bucket: str, small_file: Path
) -> None:
    open_store(swift_bucket).write("a", b"1")
    for name, value in swift.environment(swift.reader).items():
        aws.setenv(name, value)
    store = open_store(swift_bucket)
    assert store.read("a") == b"1"
    for call in CHANGES:
        with pytest.raises(StoreRefusedError, match="not allowed with these cred") as caught:
            EVERY_CALL[call](store, small_file)
        assert caught.value.exit_code == 2
    assert [each.key for each in store.entries()] == ["a"]


@pytest.fixture
def faulty(
    any_bucket: str, aws: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[FaultyProxy]:
    """A proxy before the bucket's server, which boto3's environment leads to from here on, with a
    job's own number of attempts."""
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"], getattr(request, "param", Faults())) as proxy:
        aws.setenv("AWS_ENDPOINT_URL", proxy.url)
        aws.delenv("AWS_MAX_ATTEMPTS")
        aws.setenv("WHYBOX_S3_READ_SECONDS", "1")
        yield proxy


@pytest.mark.parametrize("faulty", [Faults(fault_share=0.2, hold_seconds=1.5)], indirect=True)
@pytest.mark.parametrize("count", [40, pytest.param(300, marks=pytest.mark.full)])
def test_a_fifth_of_requests_fails(
    any_bucket: str, faulty: FaultyProxy, count: int, tmp_path: Path
) -> None:
    store = open_store(any_bucket)
    bodies = [os.urandom(1000 + number) for number in range(count)]
    large = tmp_path / "large"
    large.write_bytes(os.urandom(20 * 2**20))
    store.write_file("large", large)

    def keep(number: int) -> tuple[bool, bool, bytes, bytes]:
        written, made = f"written/{number:03d}", f"made/{number:03d}"
        store.write(written, bodies[number])
        created = store.create(made, bodies[number]), store.create(made, b"other")
        return *created, store.read(written), store.read(made)

    assert together(keep, count) == [(True, False, body, body) for body in bodies]
    assert store.read("large") == large.read_bytes()
    assert [each.key for each in store.entries()] == [
        "large",
        *(f"{folder}/{number:03d}" for folder in ("made", "written") for number in range(count)),
    ]
    assert sum(faulty.faults.values()) > faulty.requests / 10


def test_a_creation_whose_answer_is_lost(any_bucket: str, faulty: FaultyProxy) -> None:
    hasty = open_store(any_bucket, S3Settings(attempts=1))
    faulty.options = Faults(fault_share=1, kinds=(LOST_ANSWER,))
    with pytest.raises(StoreDownError):
        hasty.create("lock", b"ours")
    faulty.options = Faults()
    assert not hasty.create("lock", b"theirs")
    assert hasty.create("lock", b"ours")


def test_a_store_that_stays_down_and_one_that_comes_back(
    any_bucket: str, faulty: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    store = open_store(any_bucket)
    store.write("a", b"1")
    faulty.down = True
    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", waits.append)
        with pytest.raises(StoreDownError, match="does not answer") as caught:
            store.read("a")
    assert caught.value.exit_code == 75
    assert len(waits) == S3Settings.attempts - 1
    assert all(
        wait <= min(FIRST_DELAY * 2**number, LONGEST_DELAY) for number, wait in enumerate(waits)
    )
    faulty.down = False
    assert store.read("a") == b"1"

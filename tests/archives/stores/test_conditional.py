"""Conditional writes on folders, moto and Swift: races of threads and processes, faults."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from archives.errors import MissingObjectError, NotPromisedError, StoreDownError
from archives.stores.conditional import Written, change, promises
from archives.stores.folder import FolderStore
from archives.stores.opening import open_store
from tests.archives.stores.test_s3 import BODY, MISSING, TAKEN, UNKNOWN, answering, error, head
from tests.conftest import put
from tests.faulty import CONFLICT, LOST_ANSWER, PRECONDITION, Faults, FaultyProxy

pytest_plugins = ("tests.swift",)

THREADS = 8
# One of several processes, each of which appends its name five times.
APPEND = """
import sys
from archives.stores.opening import open_store

store, name = open_store(sys.argv[1]), sys.argv[2]
for number in range(5):
    while True:
        data, tag = store.read_tagged("list")
        if store.replace("list", data + f"{name}{number} ".encode(), tag):
            break
"""


def test_what_changed_is_not_replaced(place: str) -> None:
    put(place, {"a": b"first"})
    store = open_store(place)
    data, tag = store.read_tagged("a")
    assert data == b"first"
    assert store.replace("a", b"second", tag)
    assert not store.replace("a", b"third", tag)
    assert store.read("a") == b"second"
    assert store.replace("a", b"second", tag), "what is there is what was to be written"
    assert store.replace("a", b"fourth", store.read_tagged("a")[1])
    assert [each.key for each in store.entries()] == ["a"]


def test_what_is_gone_is_not_replaced(place: str) -> None:
    put(place, {"a": b"1"})
    store = open_store(place)
    tag = store.read_tagged("a")[1]
    store.delete("a")
    assert not store.replace("a", b"2", tag)
    assert not store.replace("no/folder", b"2", tag)
    with pytest.raises(MissingObjectError):
        store.read_tagged("a")


def test_of_several_threads_one_wins(place: str) -> None:
    put(place, {"a": b"0"})
    store = open_store(place)
    for number in range(5):
        tag = store.read_tagged("a")[1]
        with ThreadPoolExecutor(THREADS) as pool:
            data = [f"{number} {thread}".encode() for thread in range(THREADS)]
            won = list(pool.map(lambda each, tag=tag: store.replace("a", each, tag), data))
        assert [each for each, first in zip(data, won, strict=True) if first] == [store.read("a")]


def test_no_change_of_several_processes_is_lost(place: str) -> None:
    put(place, {"list": b""})
    started = [
        subprocess.Popen([sys.executable, "-c", APPEND, place, name]) for name in ("a", "b", "c")
    ]
    assert [each.wait(60) for each in started] == [0, 0, 0]
    found = open_store(place).read("list").decode().split()
    assert sorted(found) == sorted(f"{name}{number}" for name in "abc" for number in range(5))


def test_no_change_is_lost_to_faults(bucket: str, aws: pytest.MonkeyPatch) -> None:
    put(bucket, {"list": b""})
    kinds = (CONFLICT, PRECONDITION, LOST_ANSWER)
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    aws.setenv("AWS_MAX_ATTEMPTS", "10")
    aws.setattr("archives.stores.s3.FIRST_DELAY", 0.001)
    with FaultyProxy(endpoint, Faults(fault_share=0.3, kinds=kinds)) as proxy:
        aws.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = open_store(bucket)

        def append(name: str) -> None:
            for number in range(10):
                mine = f"{name}{number} ".encode()
                while mine not in (found := store.read_tagged("list"))[0]:
                    store.replace("list", found[0] + mine, found[1])

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(append, "abc"))
        assert proxy.faults[LOST_ANSWER]
        assert proxy.faults[CONFLICT] + proxy.faults[PRECONDITION]
        found = store.read("list").decode().split()
    assert sorted(found) == sorted(f"{name}{number}" for name in "abc" for number in range(10))


CONFLICTING = error("409 Conflict", "ConditionalRequestConflict")
DONE = head("200 OK", 0)
MINE = head("200 OK", 5, 'ETag: "other"') + b"abcde"
UNCHANGED = head("200 OK", 3, 'ETag: "tag"') + b"old"
CHANGED = head("200 OK", 5, 'ETag: "other"') + b"edcba"


@pytest.mark.parametrize(
    ("answers", "won"),
    [
        ([DONE], True),
        ([CONFLICTING, DONE], True),
        ([b"", DONE], True),
        ([b"", TAKEN, MINE], True),
        ([b"", TAKEN, CHANGED], False),
        ([TAKEN, UNCHANGED, DONE], True),
        ([TAKEN, MISSING], False),
        ([MISSING, MISSING], False),
    ],
)
def test_replacing(aws: pytest.MonkeyPatch, answers: list[bytes], won: bool) -> None:
    aws.setenv("AWS_MAX_ATTEMPTS", "2")
    with answering(aws, answers):
        assert open_store("s3://bucket").replace("k", b"abcde", "tag") is won


def test_a_store_that_contradicts_itself(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_MAX_ATTEMPTS", "2")
    with (
        answering(aws, [TAKEN, UNCHANGED] * 2),
        pytest.raises(StoreDownError, match="says it changed"),
    ):
        open_store("s3://bucket").replace("k", b"abcde", "tag")


def test_a_store_that_is_always_busy_is_worth_another_try(aws: pytest.MonkeyPatch) -> None:
    with answering(aws, [CONFLICTING]), pytest.raises(StoreDownError):
        open_store("s3://bucket").replace("k", b"abcde", "tag")


def test_who_promises(place: str) -> None:
    assert promises(open_store(place))


@pytest.mark.parametrize(
    ("answers", "promised"),
    [
        ([UNKNOWN], False),
        ([DONE, head("204 No Content", 0)], False),
        ([MISSING, MISSING], True),
    ],
)
def test_who_does_not_promise(
    aws: pytest.MonkeyPatch, answers: list[bytes], promised: bool
) -> None:
    with answering(aws, answers):
        assert promises(open_store("s3://bucket")) is promised


def test_swift_promises_nothing_and_says_so(swift_bucket: str) -> None:
    store = open_store(swift_bucket)
    store.write("a", b"1")
    tag = store.read_tagged("a")[1]
    with pytest.raises(NotPromisedError, match="knows no conditional writes"):
        store.replace("a", b"2", tag)
    assert store.read("a") == b"1"
    assert change(store, "a", b"2", tag) == Written(won=True, promised=False)
    assert change(store, "a", b"3", tag) == Written(won=False, promised=False)
    assert change(store, "b", b"4", None) == Written(won=True, promised=False)
    assert change(store, "b", b"5", None) == Written(won=False, promised=False)
    assert [(each.key, store.read(each.key)) for each in store.entries()] == [
        ("a", b"2"),
        ("b", b"4"),
    ]


def test_a_folder_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    store = FolderStore(tmp_path)
    store.write("a", b"1")
    tag = store.read_tagged("a")[1]
    with pytest.raises(NotPromisedError, match="cannot be locked there"):
        store.replace("a", b"2", tag)
    assert change(store, "a", b"2", tag) == Written(won=True, promised=False)
    assert store.read("a") == b"2"


@pytest.mark.parametrize("size", [0, 5, 2**20, 2**20 + 1])
def test_files_there_and_back(place: str, tmp_path: Path, size: int) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(os.urandom(size))
    store = open_store(place)
    assert store.create_file("a/b", source)
    assert store.create_file("a/b", source), "it is there already"
    store.read_file("a/b", copy)
    assert copy.read_bytes() == source.read_bytes()
    for other in (source.read_bytes() + b"x", source.read_bytes()[:-1] or b"x"):
        copy.write_bytes(other)
        assert not store.create_file("a/b", copy)
    with pytest.raises(MissingObjectError):
        store.read_file("a", copy)


def test_a_file_is_created_though_answers_are_lost(aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    aws.setenv("AWS_MAX_ATTEMPTS", "2")
    (tmp_path / "file").write_bytes(b"abcde")
    for answers, created in (
        ([TAKEN, BODY], True),
        ([TAKEN, BODY[:-2], BODY], True),
        ([TAKEN, head("200 OK", 5) + b"abcdX"], False),
        ([UNKNOWN, MISSING, DONE], True),
    ):
        with answering(aws, answers):
            assert open_store("s3://bucket").create_file("k", tmp_path / "file") is created


def test_a_bucket_gets_the_condition(bucket: str) -> None:
    """What a tag is, S3 says: that of the object that boto3 shows."""
    put(bucket, {"a": b"1"})
    name = bucket.removeprefix("s3://")
    tag = boto3.client("s3").head_object(Bucket=name, Key="a")["ETag"]
    assert open_store(bucket).read_tagged("a")[1] == tag.strip('"')

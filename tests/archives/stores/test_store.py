"""One contract, kept by folders and by S3."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from archives.errors import (
    CommandError,
    DeniedObjectError,
    MissingObjectError,
    StoreDownError,
    StoreRefusedError,
    UsageError,
)
from archives.stores.opening import open_root, open_store, split_uri
from tests.conftest import put

KEYS = ["a.jpg", "b/c.jpg", "b/d/é %#.jpg", "b-/e.jpg"]


def test_what_is_written_is_read_and_listed(place: str) -> None:
    put(place, {key: key.encode() for key in KEYS})
    store = open_store(place)
    assert {each.key: each.size for each in store.entries()} == {
        key: len(key.encode()) for key in KEYS
    }
    assert [store.read(key) for key in KEYS] == [key.encode() for key in KEYS]
    assert {each.key for each in store.entries("b/")} == {"b/c.jpg", "b/d/é %#.jpg"}
    assert {each.key for each in store.below("b/").entries()} == {"c.jpg", "d/é %#.jpg"}


def test_a_write_replaces_and_changes_the_tag(place: str) -> None:
    put(place, {"a": b"first"})
    before = open_store(place).find("a")
    put(place, {"a": b"other"})
    after = open_store(place).find("a")
    assert before is not None
    assert after is not None
    assert (before.size, after.size) == (5, 5)
    assert before.tag != after.tag
    assert open_store(place).read("a") == b"other"


def test_folders_and_missing_keys_are_no_objects(place: str) -> None:
    put(place, {"a.jpg": b"", "b/c": b""})
    store = open_store(place)
    assert [store.find(key) for key in ("b", "b/", "", "c", "a.jpg/x")] == [None] * 5
    for key in ("c", "a.jpg/x", "b"):
        with pytest.raises(MissingObjectError, match=key):
            store.read(key)


def test_a_place_may_be_given_with_or_without_its_final_slash(place: str) -> None:
    put(place + "/", {"a": b"1"})
    assert open_store(place).read("a") == b"1"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b", ("s3://b", "")),
        ("s3://b/", ("s3://b", "")),
        ("s3://b/p/q.jpg", ("s3://b", "p/q.jpg")),
        ("/p/../q", ("/", "q")),
        ("/", ("/", "")),
    ],
)
def test_splitting_a_uri(uri: str, expected: tuple[str, str]) -> None:
    assert split_uri(uri) == expected


@pytest.mark.parametrize("uri", ["", "s3://", "s3:///key", "gs://b/p", "http://x/y"])
def test_places_that_are_none(uri: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        split_uri(uri)


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreRefusedError, match="cannot be written: Not a directory"):
        open_store(str(tmp_path / "file" / "out")).write("run.json", b"")


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, 75), (errno.EIO, 75), (errno.ENOTSUP, 2), (errno.ELOOP, 2), (errno.EROFS, 2)],
)
def test_only_what_may_pass_is_worth_a_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(CommandError, match=f"a cannot be written: {os.strerror(number)}") as caught:
        open_store(str(tmp_path)).write("a", b"1")
    assert caught.value.exit_code == code
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_a_circle_cannot_be_found(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(StoreRefusedError, match="a cannot be read: Too many levels"):
        open_store(str(tmp_path)).find("a")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(StoreRefusedError):
        open_store(str(tmp_path)).write("taken", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_what_killed_writers_leave_is_no_object(tmp_path: Path) -> None:
    (tmp_path / ".whybox-0123.part").write_bytes(b"half")
    (tmp_path / ".whybox-notes").write_bytes(b"")
    assert [each.key for each in open_store(str(tmp_path)).entries()] == [".whybox-notes"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_creating_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.link", link)
    store = open_store(str(tmp_path))
    assert store.create("a", b"1")
    assert not store.create("a", b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1"}


def test_what_is_no_file_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "link"):
        with pytest.raises(StoreRefusedError, match="what is there is no file"):
            open_store(str(tmp_path)).create(name, b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link"]


def test_a_file_that_may_not_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlink(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(StoreRefusedError, match="a cannot be deleted: Permission denied"):
        open_store(str(tmp_path)).delete("a")


def test_a_listing_of_folders_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("b/1", "a/1", "c/1"):
        open_store(str(tmp_path)).write(key, b"")
    visited: list[str] = []
    scandir = os.scandir

    def scan(path: str) -> Any:
        visited.append(path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", scan)
    entries = open_store(str(tmp_path)).entries()
    assert next(entries).key == "a/1"
    assert [os.path.relpath(path, tmp_path) for path in visited] == [".", "a"]
    assert [each.key for each in entries] == ["b/1", "c/1"]


def test_links_that_lead_nowhere_are_listed_and_pipes_are_not(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert [tuple(each) for each in open_store(str(tmp_path)).entries()] == [
        ("broken.jpg", -1, "unreadable")
    ]


def test_the_root_of_the_file_system_is_a_store(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    assert open_root("/").read(str(tmp_path / "a").lstrip("/")) == b"1"


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ESTALE, StoreDownError),
        (errno.EIO, DeniedObjectError),
        (errno.EPERM, DeniedObjectError),
    ],
)
def test_a_file_server_that_is_down_is_not_a_bad_picture(
    number: int, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(error):
        open_store(str(tmp_path)).read("a.jpg")

"""A registry on folders and moto: versions never change, and are fetched as they were published."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archives.errors import CommandError, ConflictError, UnsafeError, UsageError
from archives.names import read_reference
from archives.registry.registry import Registry
from archives.signatures.keys import PrivateKey
from archives.signatures.signing import MalformedSignatureError, OtherBytesError, signature_of
from archives.verify import UnsafeArchiveError, verify
from handlers.manifest import ArchiveError
from tests.archives.registry.conftest import other, promotion, publish, small, tampered_version
from tests.archives.small_archives import write_signature, write_small
from tests.conftest import put, remove

KEY, OTHER = PrivateKey.generate(), PrivateKey.generate()

# Publishes and is killed when it has written so many objects.
KILLED = """
import os, signal, sys
from pathlib import Path
from archives.registry.registry import Registry
from archives.stores.folder import FolderStore
from archives.stores.s3 import S3Store

left = int(sys.argv[3])

def dying(create):
    def call(store, key, what):
        global left
        done = create(store, key, what)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return call

for kind in (FolderStore, S3Store):
    for name in ("create", "create_file"):
        setattr(kind, name, dying(getattr(kind, name)))
archive = Path(sys.argv[2])
Registry.open(sys.argv[1]).publish(archive, archive.with_name(archive.name + ".sig"))
"""
PUBLISH = "from archives.__main__ import main; import sys; sys.exit(main(sys.argv[1:]))"


def keys(registry: Registry) -> list[str]:
    return [each.key for each in registry.store.entries()]


def test_what_is_published_is_fetched(registry: Registry, tmp_path: Path) -> None:
    archive = small(tmp_path)
    signature = write_signature(tmp_path / "s", archive, KEY)
    done = registry.publish(archive, signature)
    assert (done.found.name, done.found.version, done.new, done.promised) == (
        "demo",
        "1.0",
        True,
        True,
    )
    assert keys(registry) == [
        f"demo/1.0/{name}" for name in ("demo.mar", "demo.mar.sig", "whybox.json")
    ]
    got = registry.fetch(registry.find("demo", "1.0"), tmp_path / "got")
    assert got.path.read_bytes() == archive.read_bytes()
    assert got.signature is not None
    assert got.signature.read_bytes() == signature.read_bytes()
    assert got.manifest == verify(archive)
    assert sorted(each.name for each in (tmp_path / "got").iterdir()) == [
        "demo.mar",
        "demo.mar.sig",
    ]


def test_what_is_fetched_replaces_an_archive_and_its_signature(
    registry: Registry, tmp_path: Path
) -> None:
    publish(registry, tmp_path, "1.0")
    (tmp_path / "demo.mar").write_bytes(b"before")
    (tmp_path / "demo.mar.sig").write_bytes(b"of what was before")
    registry.fetch(registry.find("demo", "1.0"), tmp_path)
    assert verify(tmp_path / "demo.mar").version == "1.0"
    assert not (tmp_path / "demo.mar.sig").exists()


def test_the_same_bytes_again_change_nothing(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0")
    before = {each: registry.store.find(each) for each in keys(registry)}
    assert not registry.publish(small(tmp_path)).new
    assert {each: registry.store.find(each) for each in keys(registry)} == before


def test_signatures_are_added_and_never_lost(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0")
    archive = small(tmp_path)
    one = write_signature(tmp_path / "one", archive, KEY)
    both = write_signature(tmp_path / "both", archive, KEY, OTHER)
    alone = write_signature(tmp_path / "alone", archive, OTHER)
    for signature in (one, both):
        done = registry.publish(archive, signature)
        assert (done.new, done.found.signed) == (True, True)
        assert not registry.publish(archive, signature).new
    for signature in (one, alone):
        with pytest.raises(ConflictError, match="has another signature, which this one does not"):
            registry.publish(archive, signature)
    assert registry.store.read("demo/1.0/demo.mar.sig") == both.read_bytes()


def test_who_signs_at_the_same_time_is_told(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = small(tmp_path)
    registry.publish(archive, write_signature(tmp_path / "one", archive, KEY))
    mine = write_signature(tmp_path / "mine", archive, KEY, OTHER)
    theirs = write_signature(tmp_path / "theirs", archive, KEY, PrivateKey.generate())
    kind = type(registry.store)
    write = kind.replace

    def meanwhile(store: Any, key: str, data: bytes, tag: str) -> bool:
        if key.endswith(".sig"):
            monkeypatch.setattr(kind, "replace", write)
            registry.publish(archive, theirs)
        return write(store, key, data, tag)

    monkeypatch.setattr(kind, "replace", meanwhile)
    with pytest.raises(ConflictError, match="was signed by somebody else meanwhile"):
        registry.publish(archive, mine)
    assert registry.store.read("demo/1.0/demo.mar.sig") == theirs.read_bytes()


def test_a_signature_of_other_bytes_is_not_published(registry: Registry, tmp_path: Path) -> None:
    stale = write_signature(tmp_path / "stale", other(tmp_path), KEY)
    with pytest.raises(OtherBytesError, match=rf"{stale} is the signature of 'demo' '1\.0'"):
        registry.publish(small(tmp_path), stale)
    (tmp_path / "notes").write_text("{}")
    with pytest.raises(MalformedSignatureError, match="notes is no signature of an archive"):
        registry.publish(small(tmp_path), tmp_path / "notes")
    assert registry.inventory() == {}


def test_other_bytes_are_refused(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0")
    with pytest.raises(ConflictError, match="is published with other bytes") as caught:
        registry.publish(other(tmp_path))
    assert caught.value.exit_code == 6
    assert registry.find("demo", "1.0").manifest == verify(small(tmp_path))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_killed_publication_is_finished_by_the_same_bytes_alone(
    step: int, place: str, tmp_path: Path
) -> None:
    archive, registry = small(tmp_path), Registry.open(place)
    write_signature(signature_of(archive), archive, KEY)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, place, str(archive), str(step)],
        env={**os.environ, "TMPDIR": str(tmp_path)},  # of what it leaves behind
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert len(keys(registry)) == step
    if step < 3:
        with pytest.raises(UsageError, match=r"demo@1\.0 was begun and never finished"):
            registry.find("demo", "1.0")
        assert registry.inventory()["demo"].begun == ["1.0"]
    with pytest.raises(ConflictError, match="begun with other" if step < 3 else "is published"):
        registry.publish(other(tmp_path))
    again = registry.publish(archive, archive.with_name(archive.name + ".sig"))
    assert (again.new, again.found.signed) == (step < 3, True)


def test_of_two_who_publish_at_once_one_wins(place: str, tmp_path: Path) -> None:
    archives = [small(tmp_path), other(tmp_path)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, "publish", str(each), "--registry", place],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for each in archives
    ]
    said = [each.communicate()[1].decode() for each in started]
    codes = [each.returncode for each in started]
    assert sorted(codes) == [0, 6], said
    assert "with other bytes" in said[codes.index(6)]
    registry = Registry.open(place)
    winner = archives[codes.index(0)]
    got = registry.fetch(registry.find("demo", "1.0"), tmp_path / "got")
    assert got.path.read_bytes() == winner.read_bytes()


def test_versions_sort_by_number(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.10", "1.9", "2", "1.9.1", "0.1")
    assert registry.versions("demo") == ["0.1", "1.9", "1.9.1", "1.10", "2"]
    assert registry.versions("none") == []


def test_what_others_put_there_is_left_out(registry: Registry, place: str, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0")
    put(place, {"demo/notes.txt": b"", "demo/1.0/x/y": b"", "-x/1.0/whybox.json": b"", "top": b""})
    put(place, {"demo/aliases/UPPER.json": b"", "demo/v2/whybox.json": b""})
    listed = registry.inventory()
    assert list(listed) == ["demo"]
    assert (listed["demo"].versions, listed["demo"].begun, listed["demo"].aliases) == (
        ["1.0"],
        [],
        [],
    )


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("demo@2.0", r"there is no demo@2\.0 in the registry .*; versions: 1\.0"),
        ("demo@staging", r"there is no demo@staging .*; aliases of demo: production"),
        ("none@1.0", r"there is no none in the registry .*; it has demo"),
        ("none@production", r"aliases of none: none"),
    ],
)
def test_what_is_not_there(registry: Registry, tmp_path: Path, which: str, message: str) -> None:
    publish(registry, tmp_path, "1.0")
    registry.promote(promotion("demo@1.0"))
    with pytest.raises(UsageError, match=message):
        registry.resolve(read_reference(which))


@pytest.mark.parametrize(("name", "version"), [("../x", "1.0"), ("a/b", "1"), ("demo", "1/../2")])
def test_an_archive_cannot_choose_its_place(
    registry: Registry, tmp_path: Path, name: str, version: str
) -> None:
    archive = write_small(tmp_path / "a.mar", version, name)
    with pytest.raises(UnsafeArchiveError, match="could lead elsewhere"):
        registry.publish(archive)
    assert registry.inventory() == {}


def test_only_what_verifies_is_published(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "bad.mar").write_bytes(small(tmp_path).read_bytes()[:-30])
    with pytest.raises(ArchiveError, match=r"bad\.mar is truncated or damaged"):
        registry.publish(tmp_path / "bad.mar")
    assert registry.inventory() == {}


def tampered_archive(registry: Registry, tmp_path: Path) -> None:
    registry.store.write_file("demo/1.0/demo.mar", other(tmp_path))


def damaged_archive(registry: Registry, tmp_path: Path) -> None:
    data = small(tmp_path).read_bytes()
    registry.store.write("demo/1.0/demo.mar", data.replace(b"never run", b"now I run"))


def another_manifest(registry: Registry, tmp_path: Path) -> None:
    manifest = verify(small(tmp_path, "2.0")).to_json()
    registry.store.write("demo/1.0/whybox.json", manifest)


def damaged_manifest(registry: Registry, tmp_path: Path) -> None:
    registry.store.write("demo/1.0/whybox.json", b"{")


def damaged_alias(registry: Registry, tmp_path: Path) -> None:
    registry.store.write("demo/aliases/production.json", b'{"version": "../x"}')


def moved_alias(registry: Registry, tmp_path: Path) -> None:
    found = json.loads(registry.store.read("demo/aliases/production.json"))
    put_text = json.dumps(found | {"version": "2.0"}).encode()
    registry.store.write("demo/aliases/production.json", put_text)


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (tampered_archive, "has digest .*; expected, as whybox.json beside it says"),
        (damaged_archive, "tampered"),
        (tampered_version, "was changed after it was promoted"),
        (another_manifest, r"holds the manifest of demo 2\.0"),
        (damaged_manifest, "is not JSON"),
        (damaged_alias, "is no alias as Whybox writes it"),
        (moved_alias, "contradicts itself"),
    ],
)
def test_what_was_tampered_with_is_not_fetched(
    tamper: Any, message: str, registry: Registry, tmp_path: Path
) -> None:
    publish(registry, tmp_path, "1.0")
    registry.promote(promotion("demo@1.0"))
    tamper(registry, tmp_path)
    with pytest.raises(UnsafeError, match=message) as caught:
        registry.fetch(registry.resolve(read_reference("demo@production")), tmp_path / "got")
    assert caught.value.exit_code == 5
    assert not list((tmp_path / "got").glob("*"))


def test_a_registry_that_nobody_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WHYBOX_REGISTRY", raising=False)
    with pytest.raises(CommandError, match="Give --registry, or set WHYBOX_REGISTRY"):
        Registry.open()
    monkeypatch.setenv("WHYBOX_REGISTRY", str(tmp_path))
    assert Registry.open().store.uri == str(tmp_path)


def test_a_version_without_its_archive(registry: Registry, place: str, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0")
    remove(place, "demo/1.0/demo.mar")
    with pytest.raises(CommandError, match=r"demo/1\.0/demo\.mar"):
        registry.fetch(registry.find("demo", "1.0"), tmp_path / "got")

"""A registry on folders and moto: versions that never change, aliases that one at a time moves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from archives.errors import CommandError, ConflictError, MissedError, UnsafeError, UsageError
from archives.names import read_reference
from archives.registry.gates import GateChange
from archives.registry.registry import Promotion, Registry
from archives.signatures.keys import PrivateKey
from archives.signatures.signing import MalformedSignatureError, OtherBytesError, signature_of
from archives.verify import UnsafeArchiveError, verify
from handlers.manifest import ArchiveError
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


@pytest.fixture
def registry(place: str) -> Registry:
    return Registry.open(place)


def small(tmp_path: Path, version: str = "1.0", **options: Any) -> Path:
    return write_small(tmp_path / f"archive-{version}.mar", version, **options)


def other(tmp_path: Path, version: str = "1.0") -> Path:
    return write_small(tmp_path / "other.mar", version, categories=("cat",))


def publish(registry: Registry, tmp_path: Path, *versions: str) -> None:
    for version in versions:
        registry.publish(small(tmp_path, version))


def promotion(which: str, alias: str = "production", **options: Any) -> Promotion:
    return Promotion(read_reference(which), alias, **({"who": "alice", "why": "because"} | options))


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
        [sys.executable, "-c", KILLED, place, str(archive), str(step)], check=False
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


def tampered_version(registry: Registry, tmp_path: Path) -> None:
    archive = other(tmp_path)
    registry.store.write_file("demo/1.0/demo.mar", archive)
    registry.store.write("demo/1.0/whybox.json", verify(archive).to_json())


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


def test_an_alias_moves_and_keeps_its_history(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0", "1.1")
    registry.promote(promotion("demo@1.0", "staging"))
    registry.promote(promotion("demo@staging"))
    moved = registry.promote(promotion("demo@1.1", who="bob", why="better"))
    assert (moved.changed, moved.promised) == (True, True)
    alias = registry.aliases("demo").find("production")
    assert alias == moved.alias
    assert (alias.version, alias.digest) == ("1.1", verify(small(tmp_path, "1.1")).digest)
    assert [(each.who, each.left, each.to, each.why) for each in alias.history] == [
        ("alice", None, "1.0", "because"),
        ("bob", "1.0", "1.1", "better"),
    ]
    assert [each.alias for each in registry.aliases("demo").all()] == ["production", "staging"]


def test_the_same_promotion_again_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0")
    first = registry.promote(promotion("demo@1.0"))
    again = registry.promote(promotion("demo@1.0", who="bob"))
    assert (again.changed, again.alias) == (False, first.alias)


@pytest.mark.parametrize(
    ("who", "why"), [("", "x"), ("x", " "), ("x", "a\nb"), ("\x1b[2J", "x"), ("x", "x" * 501)]
)
def test_a_history_is_plain_text(registry: Registry, tmp_path: Path, who: str, why: str) -> None:
    publish(registry, tmp_path, "1.0")
    with pytest.raises(UsageError, match="expected a line of plain text"):
        registry.promote(promotion("demo@1.0", who=who, why=why))


def test_an_alias_is_where_it_was_expected(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0", "1.1")
    with pytest.raises(ConflictError, match=r"expected to be 1\.0 and is not there"):
        registry.promote(promotion("demo@1.1", expect="1.0"))
    registry.promote(promotion("demo@1.0", expect="none"))
    with pytest.raises(ConflictError, match=r"is 1\.0; alice moved it to 1\.0 at .*: because"):
        registry.promote(promotion("demo@1.1", expect="none"))
    registry.promote(promotion("demo@1.1", expect="1.0"))


@pytest.mark.parametrize("first", [True, False])
def test_who_promotes_at_the_same_time_is_told(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    publish(registry, tmp_path, "1.0", "1.1", "1.2")
    if not first:
        registry.promote(promotion("demo@1.0"))
    aliases = registry.aliases("demo")
    kind, verb = type(aliases.store), "create" if first else "replace"
    write = getattr(kind, verb)

    def meanwhile(store: Any, key: str, *rest: Any) -> bool:
        if key.startswith("aliases/"):
            monkeypatch.setattr(kind, verb, write)
            registry.promote(promotion("demo@1.2", who="bob", why="quicker"))
        return bool(write(store, key, *rest))

    monkeypatch.setattr(kind, verb, meanwhile)
    with pytest.raises(
        ConflictError, match=r"bob moved it .*to 1\.2 at .*: quicker\. It was"
    ) as caught:
        registry.promote(promotion("demo@1.1"))
    assert caught.value.exit_code == 6
    alias = registry.aliases("demo").find("production")
    assert alias is not None
    assert alias.version == "1.2"


def test_who_won_and_was_overtaken_is_not_told_that_it_lost(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to its write was lost, and the next attempt found what another made of it."""
    publish(registry, tmp_path, "1.0", "1.1", "1.2")
    registry.promote(promotion("demo@1.0"))
    kind = type(registry.store)
    write = kind.replace

    def overtaken(store: Any, key: str, data: bytes, tag: str) -> bool:
        done = write(store, key, data, tag)
        if key.startswith("aliases/"):
            monkeypatch.setattr(kind, "replace", write)
            registry.promote(promotion("demo@1.2"))
            return False
        return done

    monkeypatch.setattr(kind, "replace", overtaken)
    assert registry.promote(promotion("demo@1.1")).changed
    alias = registry.aliases("demo").find("production")
    assert alias is not None
    assert [each.to for each in alias.history] == ["1.0", "1.1", "1.2"]


def test_of_many_who_promote_at_once_one_wins(registry: Registry, tmp_path: Path) -> None:
    versions = [f"1.{number}" for number in range(6)]
    publish(registry, tmp_path, *versions)
    registry.promote(promotion("demo@1.0"))

    def attempt(version: str) -> Any:
        try:
            return registry.promote(promotion(f"demo@{version}", who=version, expect="1.0"))
        except ConflictError as error:
            return str(error)

    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(attempt, versions[1:]))
    won = [each for each in found if not isinstance(each, str)]
    alias = registry.aliases("demo").find("production")
    assert [each.alias for each in won] == [alias]
    assert all(
        f"{won[0].alias.version} moved it" in each for each in found if isinstance(each, str)
    )


def test_of_several_processes_one_promotes(place: str, tmp_path: Path) -> None:
    publish(Registry.open(place), tmp_path, "1.0", "1.1", "1.2")
    Registry.open(place).promote(promotion("demo@1.0"))
    words = ["--alias", "production", "--why", "x", "--expect", "1.0", "--registry", place]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, "promote", f"demo@{version}", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LOGNAME": "somebody"},
        )
        for version in ("1.1", "1.2")
    ]
    assert sorted(each.wait(60) for each in started) == [0, 6]


def test_going_back(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0", "1.1", "1.2", "1.3")
    with pytest.raises(UsageError, match="there is no demo@production"):
        registry.previous("demo", "production")
    registry.promote(promotion("demo@1.0"))
    with pytest.raises(UsageError, match=r"has stood for 1\.0 alone"):
        registry.previous("demo", "production")
    for version in ("1.1", "1.2"):
        registry.promote(promotion(f"demo@{version}"))
    for expected in ("1.1", "1.0"):
        version = registry.previous("demo", "production")
        assert version == expected, "another rollback goes further back, not forth"
        registry.promote(promotion(f"demo@{version}", back=True))
    with pytest.raises(UsageError, match="nothing to roll back to"):
        registry.previous("demo", "production")
    registry.promote(promotion("demo@1.2"))
    assert registry.previous("demo", "production") == "1.0"
    with pytest.raises(UsageError, match=r"never stood for 1\.3"):
        registry.promote(promotion("demo@1.3", back=True))


def test_the_way_back_leads_to_the_same_bytes(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0", "1.1")
    for version in ("1.0", "1.1"):
        alias = registry.promote(promotion(f"demo@{version}")).alias
        assert alias.history[-1].digest == registry.find("demo", version).manifest.digest
    tampered_version(registry, tmp_path)
    with pytest.raises(UnsafeArchiveError, match=r"stood for 1\.0 with digest .*changed since"):
        registry.promote(promotion("demo@1.0", back=True))
    path = "demo/aliases/production.json"
    values = json.loads(registry.store.read(path))
    for each in values["history"]:  # as they were written before
        del each["digest"]
    registry.store.write(path, json.dumps(values).encode())
    assert registry.promote(promotion("demo@1.0", back=True)).changed


def report(registry: Registry, version: str = "1.1", figure: float = 0.8) -> bytes:
    found = registry.find("demo", version)
    archive = {"name": "demo", "version": version, "digest": found.manifest.digest}
    values = {
        "schema_version": 1,
        "archive": archive,
        "created": "2026-01-02T03:04:05Z",
        "figures": {"pointing": figure},
        "thresholds": [{"figure": "pointing", "at_least": 0.7}],
        "passed": True,
    }
    return json.dumps(values).encode()


def gate(required: bool = True) -> GateChange:
    return GateChange(who="carol", alias="production", required=required, why="auditors")


def test_a_gate_wants_a_report_of_this_very_archive(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0", "1.1")
    registry.promote(promotion("demo@1.0"))
    assert registry.set_gate("demo", gate())[0].required == ("production",)
    registry.promote(promotion("demo@1.1", "staging"))
    for data, message in (
        (None, r"demo@production has a gate: promote 1\.1 with --gate"),
        (report(registry, "1.0"), "the audit report is of demo 1.0"),
        (report(registry, figure=0.69), "pointing is 0.69, less than 0.7"),
    ):
        with pytest.raises(MissedError, match=message) as caught:
            registry.promote(promotion("demo@1.1", report=data))
        assert caught.value.exit_code == 4
    moved = registry.promote(promotion("demo@1.1", report=report(registry)))
    kept = moved.alias.history[-1].audit
    assert registry.store.read(f"demo/1.1/audits/{kept}.json") == report(registry)
    registry.promote(promotion("demo@1.0", back=True))
    registry.set_gate("demo", gate(required=False))
    assert registry.promote(promotion("demo@1.1")).changed
    assert [each.required for each in registry.gates("demo").history] == [True, False]


def test_a_report_counts_without_a_gate_too(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.1")
    with pytest.raises(MissedError, match="pointing"):
        registry.promote(promotion("demo@1.1", report=report(registry, figure=0.1)))
    assert registry.aliases("demo").all() == []


def test_gates_that_cannot_be_read_let_nothing_through(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "1.0")
    registry.store.write("demo/gates.json", b"{}{")
    with pytest.raises(UnsafeError, match="nothing is promoted before"):
        registry.promote(promotion("demo@1.0"))
    with pytest.raises(UsageError, match="there is no none"):
        registry.set_gate("none", gate())


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

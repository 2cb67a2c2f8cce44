"""Aliases: one at a time moves them, and their history tells who did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from archives.errors import ConflictError, UsageError
from archives.registry.registry import Registry
from archives.verify import UnsafeArchiveError, verify
from tests.archives.registry.conftest import promotion, publish, small, tampered_version

PUBLISH = "from archives.__main__ import main; import sys; sys.exit(main(sys.argv[1:]))"


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

"""A registry on OpenStack Swift, which knows no conditional writes: it works, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from archives.__main__ import main
from archives.errors import ConflictError
from archives.registry.registry import Registry
from tests.archives.small_archives import write_small

pytest_plugins = ("tests.swift",)


def test_the_life_of_a_version(
    swift_bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"{swift_bucket}/registry"
    for version in ("1.0", "1.1"):
        archive = write_small(tmp_path / f"{version}.mar", version)
        assert main(["publish", str(archive), "--registry", place]) == 0
        assert "it cannot be promised that nobody published" in capsys.readouterr().err
    for version in ("1.0", "1.1"):
        words = [
            "--alias",
            "production",
            "--why",
            "x",
            "--who",
            "me",
            "--registry",
            place,
            "--json",
        ]
        assert main(["promote", f"demo@{version}", *words]) == 0
        said = capsys.readouterr()
        assert '"promised": false' in said.out
        assert "it cannot be promised that nobody else's promotion" in said.err
    registry = Registry.open(place)
    with pytest.raises(ConflictError, match="is published with other bytes"):
        registry.publish(write_small(tmp_path / "other.mar", "1.0", categories=("cat",)))
    alias = registry.aliases("demo").find("production")
    assert alias is not None
    assert [(each.left, each.to) for each in alias.history] == [(None, "1.0"), ("1.0", "1.1")]
    assert main(["fetch", "demo@production", "--output", str(tmp_path), "--registry", place]) == 0
    assert (tmp_path / "demo.mar").read_bytes() == (tmp_path / "1.1.mar").read_bytes()

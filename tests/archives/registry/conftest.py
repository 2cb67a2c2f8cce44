"""What tests of the registry share: one on a folder and one on moto, and small archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from archives.names import read_reference
from archives.registry.registry import Promotion, Registry
from archives.verify import verify
from tests.archives.small_archives import write_small


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


def tampered_version(registry: Registry, tmp_path: Path) -> None:
    archive = other(tmp_path)
    registry.store.write_file("demo/1.0/demo.mar", archive)
    registry.store.write("demo/1.0/whybox.json", verify(archive).to_json())

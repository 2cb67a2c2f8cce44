"""Gates: an alias that moves only with a passing report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archives.errors import MissedError, UnsafeError, UsageError
from archives.registry.gates import GateChange
from archives.registry.registry import Registry
from tests.archives.registry.conftest import promotion, publish


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

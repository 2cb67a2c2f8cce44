"""What two runs were asked and made with, where that differs: a reason for what changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Of an option: what changes no row and no map.
WITHOUT_EFFECT = ("shard_size", "overlays", "save_raw", "normalize_in_box")


@dataclass(frozen=True)
class Setting:
    """One that differs. before, after: as text; "" where a run has none."""

    name: str
    before: str
    after: str


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Setting]:
    """The settings of two run.json that differ, the archive's first."""
    found = [_settings(each) for each in (before, after)]
    names = dict.fromkeys((*found[0], *found[1]))
    return [
        Setting(name, *pair)
        for name in names
        if (pair := (found[0].get(name, ""), found[1].get(name, "")))[0] != pair[1]
    ]


def _settings(record: Mapping[str, Any]) -> dict[str, str]:
    archive, options = record["archive"], record["options"]
    return {
        **{f"archive {name}": str(archive[name]) for name in ("name", "version", "digest")},
        **{
            name.replace("_", " "): _text(value)
            for name, value in sorted(options.items())
            if name not in WITHOUT_EFFECT
        },
        "device": str(record["execution"]["device"]),
        "input": str(record["input"]["root"]),
        "input's fingerprint": str(record["input"]["fingerprint"]),
    }


def _text(value: Any) -> str:
    return "by itself" if value is None else str(value)

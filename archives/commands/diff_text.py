"""What `diff` tells, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from archives.commands.registry_text import SHORT, table

MOST_ROWS = 20
Row: TypeAlias = tuple[str, ...]


def diff_text(values: Mapping[str, Any]) -> str:
    """What differs, a part after another; parts in which nothing does are named at the end."""
    one, other = values["digests"]
    lines = [f"{values['before']} -> {values['after']}"]
    if one == other:
        return "\n".join([*lines, f"  the same archive, digest {one}"])
    lines += [f"  digest {one[:SHORT]} -> {other[:SHORT]}"]
    parts: dict[str, Sequence[Row]] = {
        "weights": _weights(values["weights"]),
        "categories": _categories(values["categories"]),
        "facts": _pairs(values["manifest"]),
        "options": _pairs(values["options"]),
        "defaults": _pairs(values["defaults"]),
        "model-config.yaml": _pairs(values["model_config"]),
        "files": [(sign, name) for sign, name in _signed(values["files"])],
        "golden sample": _golden(values["golden"]),
    }
    for name, rows in parts.items():
        if rows:
            lines += ["", name, *table(rows if name == "weights" else _shortened(rows))]
    same = [name for name, rows in parts.items() if not rows]
    if same:
        lines += ["", f"the same: {', '.join(same)}"]
    return "\n".join(lines)


def _shortened(rows: Sequence[Row]) -> list[Row]:
    if len(rows) <= MOST_ROWS + 1:
        return list(rows)
    more = ("...", f"and {len(rows) - MOST_ROWS} more", "", "", "", "", "")
    return [*rows[:MOST_ROWS], more[: len(rows[0])]]


def _weights(found: Mapping[str, Any] | None) -> list[Row]:
    if found is None:
        return []
    if "unread" in found:
        return [("~", "TorchScript", "another file; what is in it cannot be compared", "")]
    rows: list[Row] = [("+", name, kind, "") for name, kind in found["added"].items()]
    rows += [("-", name, kind, "") for name, kind in found["removed"].items()]
    rows += [("~", name, *both) for name, both in found["reshaped"].items()]
    kinds = {name: f"{old} -> {new}" for name, (old, new) in found["retyped"].items()}
    rows += [("~", name, "", kind) for name, kind in kinds.items() if name not in found["changed"]]
    rows += [
        (
            "~",
            name,
            "differs by no finite number" if value is None else f"differs by up to {value:.3g}",
            kinds.get(name, ""),
        )
        for name, value in sorted(found["changed"].items(), key=lambda each: -_size(each[1]))
    ]
    return [*_shortened(rows), ("=", f"{found['same']} tensors are the same", "", "")]


def _size(value: float | None) -> float:
    return float("inf") if value is None else value


def _categories(found: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = [(sign, name, "") for sign, name in _signed(found)]
    rows += [("~", name, f"label {old} -> {new}") for name, (old, new) in found["moved"].items()]
    return rows


def _signed(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    signs = {"added": "+", "removed": "-", "changed": "~"}
    return [(sign, name) for part, sign in signs.items() for name in found.get(part, ())]


def _pairs(found: Mapping[str, Sequence[Any]]) -> list[Row]:
    return [(name, f"{_said(old)} -> {_said(new)}") for name, (old, new) in found.items()]


def _said(value: Any) -> str:
    if value in (None, "", {}):
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _golden(found: Mapping[str, Any] | None) -> list[Row]:
    if found is None:
        return [("not in both",)]
    rows: list[Row] = [("", "before", "", "after", "", "IoU", "maps")]
    for each in found["detections"]:
        old, new = each["before"], each["after"]
        category = (old or new)["category"]
        pair = (
            (f"{each['iou']:.2f}", _said(each["heatmap_similarity"])) if old and new else ("", "")
        )
        rows.append((category, *_box(old), *_box(new), *pair))
    if not found["same_picture"]:
        rows.append(("of other pictures", *("",) * 6))
    return rows


def _box(detection: Mapping[str, Any] | None) -> tuple[str, str]:
    if detection is None:
        return "nothing", ""
    return f"{detection['score']:.3f}", "[" + ", ".join(f"{x:g}" for x in detection["box"]) + "]"

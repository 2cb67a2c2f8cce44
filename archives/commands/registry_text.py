"""What `list` and `show` tell, as values and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from archives.errors import UnsafeError, one_line, printable
from archives.registry.registry import Found, Registry
from archives.stores.store import CONNECTIONS

SHORT = 12  # letters of a digest, where a person compares them
SHOWN_CATEGORIES = 8


def listed(registry: Registry, name: str) -> list[dict[str, Any]]:
    """Every archive, or one: its versions, what was begun and never finished, its aliases. A
    version that cannot be read has no digest, and says under `damaged` why."""
    inventory = registry.inventory(name)
    wanted = [(owner, version) for owner in inventory for version in inventory[owner].versions]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        read = pool.map(lambda each: _version(registry, *each), wanted)
        found = dict(zip(wanted, read, strict=True))
        aliases = dict(
            zip(
                inventory,
                pool.map(lambda each: registry.aliases(each).all(), inventory),
                strict=True,
            )
        )
    return [
        {
            "name": owner,
            "versions": [
                {
                    "version": version,
                    "aliases": [a.alias for a in aliases[owner] if a.version == version],
                    **found[owner, version],
                }
                for version in inventory[owner].versions
            ],
            "begun": inventory[owner].begun,
            "gates": list(registry.gates(owner).required),
        }
        for owner in inventory
    ]


def _version(registry: Registry, name: str, version: str) -> dict[str, Any]:
    try:
        found = registry.find(name, version)
    except UnsafeError as error:  # the others are listed all the same
        return {"digest": None, "signed": None, "damaged": one_line(error)}
    return {"digest": found.manifest.digest, "signed": found.signed, "damaged": None}


def list_text(uri: str, archives: Sequence[Mapping[str, Any]]) -> str:
    """The same as text."""
    if not archives:
        return f"{uri} has no archives yet; put one there: python -m archives publish ARCHIVE"
    lines: list[str] = []
    for archive in archives:
        lines.append(archive["name"])
        rows = [
            (
                each["version"],
                (each["digest"] or "")[:SHORT],
                "damaged" if each["damaged"] else "signed" if each["signed"] else "not signed",
                " ".join(
                    [
                        *(a + " (gate)" * (a in archive["gates"]) for a in each["aliases"]),
                        *([f"({each['damaged']})"] if each["damaged"] else []),
                    ]
                ),
            )
            for each in archive["versions"]
        ]
        rows += [(each, "", "", "begun, never finished") for each in archive["begun"]]
        lines += table(rows)
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]], indent: int = 2) -> list[str]:
    """Lines of left-aligned columns; what could move a terminal's cursor is shown as such."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (
            " " * indent
            + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def history(registry: Registry, found: Found) -> dict[str, Any]:
    """The aliases that stand for a version, and every move to or from it, the oldest first."""
    aliases = registry.aliases(found.name).all()
    moves = [
        {"alias": alias.alias, **move.model_dump(mode="json", by_alias=True)}
        for alias in aliases
        for move in alias.history
        if found.version in (move.to, move.left)
    ]
    return {
        "aliases": [each.alias for each in aliases if each.version == found.version],
        "gates": list(registry.gates(found.name).required),
        "history": sorted(moves, key=lambda move: str(move["when"])),
    }


def show_text(values: Mapping[str, Any]) -> str:
    """What `show` tells, as text."""
    names = values["categories"]
    more = f" and {len(names) - SHOWN_CATEGORIES} more" * (len(names) > SHOWN_CATEGORIES)
    rows = [
        ("at", values["archive"]),
        ("digest", values["digest"]),
        ("signature", "there" if values["signed"] else "none"),
        ("aliases", ", ".join(values["aliases"]) or "none"),
        ("gates", ", ".join(values["gates"]) or "none"),
        ("detector", values["architecture"]),
        ("categories", f"{len(names)}: {', '.join(names[:SHOWN_CATEGORIES])}{more}"),
        ("options", _pairs(values["options"])),
        ("defaults", _pairs(values["defaults"])),
        ("built with", _pairs(values["versions"], " ")),
    ]
    if values["own_code"]:
        rows.append(("own code", values["own_code"]))
    lines = [f"{values['name']}@{values['version']}", *table(rows)]
    moves = values["history"]
    if moves:
        lines += ["", "history", *table([_move(move) for move in moves])]
    return "\n".join(lines)


def _move(move: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(move["when"])[:16].replace("T", " "),
        move["who"],
        move["alias"],
        f"{move['from'] or 'new'} -> {move['to']}" + " (rollback)" * move["back"],
        f"audit {move['audit'][:SHORT]}" if move["audit"] else "no audit",
        move["why"],
    )


def _pairs(values: Mapping[str, Any], equals: str = "=") -> str:
    return ", ".join(f"{key}{equals}{value}" for key, value in values.items()) or "none"

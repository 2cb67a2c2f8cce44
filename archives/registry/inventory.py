"""What a registry holds, from one listing of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from archives.errors import MissingObjectError
from archives.names import ALIAS, NAME, SUFFIX, VERSION, version_order
from archives.stores.store import Store
from handlers.manifest import MANIFEST_NAME


@dataclass(frozen=True)
class Listed:
    """One archive's versions, the lowest number first; begun: those that were never finished."""

    versions: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)


def read_inventory(store: Store, name: str = "") -> dict[str, Listed]:
    """What there is by the archives' names, in order; what is not Whybox's is left out.

    name: of this archive alone.
    """
    try:
        keys = [each.key for each in store.entries(f"{name}/" if name else "")]
    except MissingObjectError:
        return {}  # a folder that nothing was published to
    parts = [key.split("/") for key in keys]
    found: dict[str, Listed] = {}
    for owner, folder, *rest in (each for each in parts if len(each) == 3):
        if not NAME.fullmatch(owner):
            continue
        listed = found.get(owner, Listed())
        if VERSION.fullmatch(folder):
            known = {MANIFEST_NAME: listed.versions, f"{owner}{SUFFIX}": listed.begun}
            if rest[0] in known:
                known[rest[0]].append(folder)
                found[owner] = listed
        elif folder == "aliases" and ALIAS.fullmatch(rest[0].removesuffix(".json")):
            listed.aliases.append(rest[0].removesuffix(".json"))
            found[owner] = listed
    for listed in found.values():
        listed.versions.sort(key=version_order)
        listed.begun[:] = sorted(set(listed.begun) - set(listed.versions), key=version_order)
    return dict(sorted(found.items()))

"""publish, list, show, diff, fetch, promote, require-gate: archives in a registry, by name."""

from __future__ import annotations

import argparse
import getpass
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archives.commands.command import DONE, Commands, add_command, tell
from archives.commands.registry_option import add_registry
from archives.errors import UsageError
from archives.location import fetched
from archives.names import Reference, check_alias, check_name, read_reference

if TYPE_CHECKING:  # with pydantic, which the other commands do without
    from archives.registry.aliases import Moved
    from archives.registry.registry import Found, Registry

REFERENCE = "NAME@ALIAS or NAME@VERSION"


def add_commands(commands: Commands) -> None:
    """publish, list, show, diff, fetch, promote and require-gate."""
    publish = add_command(commands, "publish", _publish, "put an archive into a registry")
    publish.add_argument("archive", metavar="ARCHIVE", help="a .mar file or its s3:// URI")
    publish.add_argument("--alias", metavar="ALIAS", help="and promote it to this one")
    _add_history(publish, "for --alias: why, for its history")

    listed = add_command(commands, "list", _list, "list a registry's archives and aliases")
    listed.add_argument("name", nargs="?", metavar="NAME", help="of this archive alone")

    show = add_command(commands, "show", _show, "what a registry knows about one version")
    show.add_argument("reference", metavar="NAME@WHICH", help=REFERENCE)

    diff = add_command(commands, "diff", _diff, "what differs between two versions")
    diff.add_argument("before", metavar="NAME@WHICH", help=f"{REFERENCE}, or a file or s3:// URI")
    diff.add_argument("after", metavar="NAME@WHICH", help="the same")

    fetch = add_command(commands, "fetch", _fetch, "download an archive from a registry, verified")
    fetch.add_argument("reference", metavar="NAME@WHICH", help=REFERENCE)
    fetch.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    fetch.add_argument("--force", action="store_true", help="replace an archive that is there")

    promote = add_command(commands, "promote", _promote, "have an alias stand for a version")
    promote.add_argument("reference", metavar="NAME@WHICH", help=REFERENCE)
    promote.add_argument(
        "--alias", required=True, metavar="ALIAS", help="production, staging, your own"
    )
    _add_history(promote, "why, for the alias's history", required=True)
    promote.add_argument(
        "--gate",
        metavar="FILE|URI",
        help="an audit's audit.json: promote only if it is of this archive and passes",
    )
    promote.add_argument(
        "--expect",
        metavar="VERSION",
        help="promote only if the alias stands for this version now; none: if it is not there yet",
    )

    gate = add_command(
        commands, "require-gate", _require_gate, "have an alias move only with a passing audit"
    )
    gate.add_argument("name", metavar="NAME")
    gate.add_argument("--alias", required=True, metavar="ALIAS")
    _add_history(gate, "why, for the history", required=True)
    gate.add_argument("--lift", action="store_true", help="no longer")
    for parser in (publish, listed, show, diff, fetch, promote, gate):
        add_registry(parser)


def _add_history(parser: argparse.ArgumentParser, why: str, required: bool = False) -> None:
    parser.add_argument("--why", required=required, metavar="TEXT", help=why)
    parser.add_argument("--who", metavar="NAME", help="by default this system's user")


def who_asks(options: argparse.Namespace) -> str:
    """--who, or this system's user. Raises UsageError if the system does not know it."""
    if options.who is not None:
        return str(options.who)
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("this system does not know your name; give --who") from error


def warn_unless(promised: bool, what: str) -> None:
    """Tells on stderr that the store could not make sure of something."""
    if not promised:
        print(
            f"archives: warning: this store knows no conditional writes, so it cannot be promised"
            f" that {what}; see docs/registry.md",
            file=sys.stderr,
        )


def _publish(options: argparse.Namespace) -> int:
    from archives.registry.registry import Promotion

    if options.alias is not None:
        check_alias(options.alias)
        if not options.why:
            raise UsageError("--alias: expected --why TEXT, too, for the alias's history")
    elif options.why or options.who:
        raise UsageError("--why and --who are for the history of an --alias: name one")
    registry = _opened(options)
    with tempfile.TemporaryDirectory(prefix="whybox-publish-") as private:
        archive = fetched(options.archive, Path(private), options.registry)
        done = registry.publish(archive.path, archive.signature)
    warn_unless(done.promised, "nobody published other bytes as this version at the same time")
    found = done.found
    values = _facts(registry, found) | {"new": done.new, "promised": done.promised}
    lines = [
        f"{'published' if done.new else 'was published already:'}"
        f" {found.name}@{found.version}, {'signed' if found.signed else 'not signed'}",
        f"  at      {registry.uri_of(found)}",
        f"  digest  {found.manifest.digest}",
    ]
    if options.alias is not None:
        moved = registry.promote(
            Promotion(
                Reference(found.name, "", found.version),
                options.alias,
                who_asks(options),
                options.why,
            )
        )
        values["promotion"] = moved_values(moved)
        lines.append("  " + moved_text(found.name, moved))
    tell(options, values, "\n".join(lines))
    return DONE


def moved_values(moved: Moved) -> dict[str, Any]:
    """A promotion as --json tells it; warns on stderr where it is not promised."""
    warn_unless(moved.promised, "nobody else's promotion at the same time was lost")
    last = moved.alias.history[-1]
    return {
        "alias": moved.alias.alias,
        "from": last.left if moved.changed else moved.alias.version,
        "to": moved.alias.version,
        "digest": moved.alias.digest,
        "changed": moved.changed,
        "promised": moved.promised,
    }


def moved_text(name: str, moved: Moved) -> str:
    """The same as a line of text."""
    alias, left = moved.alias, moved.alias.history[-1].left
    if not moved.changed:
        return f"{name}@{alias.alias} stands for {alias.version} already; nothing was changed"
    return f"{name}@{alias.alias} now stands for {alias.version}" + (
        f", before {left}" * bool(left)
    )


def _list(options: argparse.Namespace) -> int:
    from archives.commands import registry_text

    registry = _opened(options)
    found = registry_text.listed(registry, check_name(options.name) if options.name else "")
    if options.name and not found:
        raise UsageError(f"there is no {options.name} in the registry {registry.store.uri}")
    values = {"registry": registry.store.uri, "archives": found}
    tell(options, values, registry_text.list_text(registry.store.uri, found))
    return DONE


def _show(options: argparse.Namespace) -> int:
    from archives.commands import registry_text

    registry = _opened(options)
    found = registry.resolve(read_reference(options.reference))
    values = _facts(registry, found) | registry_text.history(registry, found)
    tell(options, values, registry_text.show_text(values))
    return DONE


def _facts(registry: Registry, found: Found) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "name": found.name,
        "version": found.version,
        "digest": manifest.digest,
        "signed": found.signed,
        "archive": registry.uri_of(found),
        "architecture": manifest.architecture,
        "categories": [each for each in manifest.categories if each != "__background__"],
        "options": dict(manifest.options),
        "defaults": dict(manifest.defaults),
        "own_code": manifest.own_code(),
        "versions": {
            "torch": manifest.torch,
            "torchvision": manifest.torchvision,
            "whybox": manifest.whybox,
        },
    }


def _diff(options: argparse.Namespace) -> int:
    from archives.commands.diff_text import diff_text
    from archives.registry.comparison import compare

    with tempfile.TemporaryDirectory(prefix="whybox-diff-") as private:
        before, after = (
            fetched(text, Path(private, side), options.registry).path
            for side, text in (("before", options.before), ("after", options.after))
        )
        values = compare(before, after, Path(private))
    values = {"before": options.before, "after": options.after, **values}
    tell(options, values, diff_text(values))
    return DONE


def _fetch(options: argparse.Namespace) -> int:
    registry = _opened(options)
    found = registry.resolve(read_reference(options.reference))
    target = options.output / f"{found.name}.mar"
    if target.exists() and not options.force:
        raise UsageError(f"{target} is there already; give --force to replace it")
    got = registry.fetch(found, options.output)
    values = _facts(registry, found) | {
        "file": str(got.path),
        "signature": str(got.signature) if got.signature else None,
    }
    text = f"{got.path}: {found.name} {found.version}, digest {found.manifest.digest}"
    tell(options, values, text + (f", signature {got.signature}" if got.signature else ""))
    return DONE


def _promote(options: argparse.Namespace) -> int:
    from archives.registry.audit_report import read_report
    from archives.registry.registry import Promotion

    registry = _opened(options)
    reference = read_reference(options.reference)
    check_alias(options.alias)
    moved = registry.promote(
        Promotion(
            reference,
            options.alias,
            who_asks(options),
            options.why,
            report=None if options.gate is None else read_report(options.gate),
            expect=options.expect,
        )
    )
    values = {"name": reference.name, **moved_values(moved)}
    tell(options, values, moved_text(reference.name, moved))
    return DONE


def _require_gate(options: argparse.Namespace) -> int:
    from archives.registry.aliases import said_in_history
    from archives.registry.gates import GateChange

    asked = GateChange(
        who=said_in_history("who", who_asks(options)),
        alias=options.alias,
        required=not options.lift,
        why=said_in_history("why", options.why),
    )
    gates, promised = _opened(options).set_gate(check_name(options.name), asked)
    warn_unless(promised, "nobody else's change of the gates at the same time was lost")
    values = {"name": options.name, "required": list(gates.required), "promised": promised}
    text = f"{options.name}: {', '.join(gates.required) or 'no alias'} "
    tell(options, values, text + "moves only with an audit report that passes")
    return DONE


def _opened(options: argparse.Namespace) -> Registry:
    from archives.registry.registry import Registry

    return Registry.open(options.registry)

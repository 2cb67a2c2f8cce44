"""A registry of archives in an object store or a folder: versions that never change, and aliases.

NAME/VERSION/NAME.mar       the archive
NAME/VERSION/NAME.mar.sig   its signature, where there is one
NAME/VERSION/whybox.json    its manifest, written last: the version exists when it is there
NAME/VERSION/audits/SHA256.json  the reports that its promotions showed at a gate
NAME/aliases/ALIAS.json     what an alias stands for, and its history
NAME/gates.json             the aliases that move only with a passing report
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from archives.errors import ConflictError, MissedError, MissingObjectError, UsageError
from archives.names import (
    SIGNATURE_SUFFIX,
    SUFFIX,
    Reference,
    check_alias,
    check_name,
    check_version,
    version_order,
)
from archives.refusals import naming
from archives.registry.aliases import Aliases, Move, Moved, Wanted, previous, said_in_history
from archives.registry.audit_report import evaluate
from archives.registry.gates import GateChange, Gates, read_gates, set_gate
from archives.registry.inventory import Listed, read_inventory
from archives.signatures.signing import adds_signatures, check_statement
from archives.stores.conditional import change, promises
from archives.stores.opening import open_store
from archives.stores.store import Store
from archives.verify import UnsafeArchiveError, verify
from handlers.manifest import MANIFEST_NAME, ArchiveError, Manifest

VARIABLE = "WHYBOX_REGISTRY"


class Found(NamedTuple):
    """A version that is there. signed: its signature is there, too; nobody checked it."""

    name: str
    version: str
    manifest: Manifest
    signed: bool


class Published(NamedTuple):
    """What came of publishing. new: False if all was there already. promised: False where the store
    cannot make sure that nobody else published other bytes at the same moment."""

    found: Found
    new: bool
    promised: bool


class FetchedArchive(NamedTuple):
    """A version on this machine, verified; signature: its file beside it, or None."""

    path: Path
    signature: Path | None
    manifest: Manifest


@dataclass(frozen=True)
class Promotion:
    """What `promote` is asked.

    reference: what the alias shall stand for. who, why: for the history.
    report: an audit report's text, or None. expect: as in `archives.registry.aliases.Wanted`.
    back: a rollback: the version stood there before, and needs no report.
    """

    reference: Reference
    alias: str
    who: str
    why: str
    report: bytes | None = None
    expect: str | None = None
    back: bool = False


class Registry:
    """Archives by name and version.

    Every call raises StoreRefusedError and StoreDownError as stores do, UsageError for what is not
    there, and UnsafeError for what is there and not as Whybox wrote it.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def open(cls, uri: str | None = None) -> Registry:
        """The registry at an s3:// URI or in a folder, by default WHYBOX_REGISTRY's."""
        chosen = uri or os.environ.get(VARIABLE)
        if not chosen:
            raise UsageError(
                f"which registry? Give --registry, or set {VARIABLE}: s3://bucket/prefix or a"
                " folder"
            )
        return cls(open_store(chosen))

    def publish(self, archive: Path, signature: Path | None = None) -> Published:
        """Puts a verified archive under its manifest's name and version, and its signature.

        What is there already is not written again; a signature is added to those that are there.
        Raises ArchiveError as `verify` does, SignatureError for a signature of other bytes, and
        ConflictError if the version is there, or was begun, with other bytes, or has a signature
        that this one lacks.
        """
        with tempfile.TemporaryDirectory(prefix="whybox-publish-") as private:
            copy = Path(private, "archive.mar")  # what is published is what was verified
            signed = Path(private, "signature")
            _copy(archive, copy)
            if signature is not None:
                _copy(signature, signed)
            with naming({copy: str(archive), signed: str(signature)}):
                manifest = verify(copy)
                if signature is not None:
                    check_statement(copy, signed)
            name, version = check_name(manifest.name), check_version(manifest.version)
            promised = promises(self._folder(name))
            target = self._folder(name, version)
            new = self._create_archive(target, manifest, copy)
            if signature is not None:
                new |= self._add_signature(target, manifest, signed.read_bytes())
            new |= self._create_manifest(target, manifest)
        return Published(self.find(name, version), new, promised)

    def _create_archive(self, target: Store, manifest: Manifest, copy: Path) -> bool:
        """Whether it was written; False if it is there."""
        key = f"{manifest.name}{SUFFIX}"
        there = target.find(key) is not None
        if there:  # looked at first, for stores that write whatever the condition
            other = copy.with_name("there.mar")
            target.read_file(key, other)
            same = filecmp.cmp(copy, other, shallow=False)
        else:
            same = target.create_file(key, copy)
        if not same:
            done = target.find(MANIFEST_NAME) is not None
            raise ConflictError(
                f"{target.uri} {'is published' if done else 'was begun'} with other bytes than"
                f" these, whose digest is {manifest.digest}: versions never change; build it with"
                " another --version"
                + ("" if done else ", or publish what was begun, or remove that folder")
            )
        return not there

    def _add_signature(self, target: Store, manifest: Manifest, data: bytes) -> bool:
        """Whether it was written; False if it is there. What is there is only ever added to."""
        key = f"{manifest.name}{SUFFIX}{SIGNATURE_SUFFIX}"
        before: tuple[bytes | None, str | None] = (None, None)
        with suppress(MissingObjectError):
            before = target.read_tagged(key)
        there, tag = before
        if there == data:
            return False
        if there is not None and not adds_signatures(there, data):
            raise ConflictError(
                f"{target.uri} has another signature, which this one does not contain: signatures"
                f" are added, and none is lost; fetch {manifest.name}@{manifest.version}, sign that"
                " and publish it"
            )
        if not change(target, key, data, tag).won:
            raise ConflictError(
                f"{target.uri} was signed by somebody else meanwhile; fetch"
                f" {manifest.name}@{manifest.version}, sign that and publish it"
            )
        return True

    def _create_manifest(self, target: Store, manifest: Manifest) -> bool:
        there = target.find(MANIFEST_NAME) is not None
        if not there and target.create(MANIFEST_NAME, manifest.to_json()):
            return True
        if self._manifest(target).digest != manifest.digest:
            raise UnsafeArchiveError(
                f"{target.uri}/{MANIFEST_NAME} is not the manifest of the archive beside it; look"
                " at who may write there"
            )
        return False

    def find(self, name: str, version: str) -> Found:
        """A version. Raises UsageError, naming those that there are, if it is not there."""
        target = self._folder(check_name(name), check_version(version))
        try:
            manifest = self._manifest(target)
        except MissingObjectError as error:
            raise self._missing(name, version) from error
        if (manifest.name, manifest.version) != (name, version):
            raise UnsafeArchiveError(
                f"{target.uri} holds the manifest of {manifest.name} {manifest.version}"
            )
        signature = target.find(f"{name}{SUFFIX}{SIGNATURE_SUFFIX}")
        return Found(name, version, manifest, signature is not None)

    def _missing(self, name: str, version: str) -> UsageError:
        there = self.inventory()
        if name not in there:
            known = f"it has {', '.join(there)}" if there else "it is empty"
            return UsageError(f"there is no {name} in the registry {self.store.uri}; {known}")
        listed = there[name]
        if version in listed.begun:
            return UsageError(
                f"{name}@{version} was begun and never finished: publish it again; in the registry"
                f" {self.store.uri}"
            )
        known = ", ".join(listed.versions) or "none"
        return UsageError(
            f"there is no {name}@{version} in the registry {self.store.uri}; versions: {known}"
        )

    def resolve(self, reference: Reference) -> Found:
        """What NAME@ALIAS or NAME@VERSION stands for now."""
        if reference.version:
            return self.find(reference.name, reference.version)
        alias = self.aliases(reference.name).find(reference.alias)
        if alias is None:
            known = [each.alias for each in self.aliases(reference.name).all()]
            raise UsageError(
                f"there is no {reference} in the registry {self.store.uri}; aliases of"
                f" {reference.name}: {', '.join(known) or 'none'}"
            )
        found = self.find(reference.name, alias.version)
        if found.manifest.digest != alias.digest:
            raise UnsafeArchiveError(
                f"{reference} stands for digest {alias.digest}, and version {alias.version} now has"
                f" {found.manifest.digest}: it was changed after it was promoted"
            )
        return found

    def fetch(self, found: Found, folder: Path) -> FetchedArchive:
        """Downloads a version into the folder, as NAME.mar and NAME.mar.sig, which are replaced.

        Nothing is there before it is verified. Raises UnsafeArchiveError if it is not what the
        registry's manifest says.
        """
        target = self._folder(found.name, found.version)
        path = folder / f"{found.name}{SUFFIX}"
        signature = path.with_name(path.name + SIGNATURE_SUFFIX)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".whybox-", dir=folder) as private:
            part = Path(private, path.name)
            target.read_file(path.name, part)
            uri = f"{target.uri}/{path.name}"
            with naming({part: uri}):
                manifest = verify(part)
            if manifest.digest != found.manifest.digest:
                raise UnsafeArchiveError(
                    f"{uri} has digest {manifest.digest}; expected, as {MANIFEST_NAME} beside it"
                    f" says, {found.manifest.digest}"
                )
            signature.unlink(missing_ok=True)  # never one archive beside another's signature
            os.replace(part, path)
            if found.signed:
                target.read_file(signature.name, part)
                os.replace(part, signature)
        return FetchedArchive(path, signature if found.signed else None, manifest)

    def aliases(self, name: str) -> Aliases:
        """The aliases of a name."""
        return Aliases(self._folder(check_name(name)), name)

    def previous(self, name: str, alias: str) -> str:
        """The version that the alias stood for before, to roll back to: as if what was rolled back
        had never been. Raises UsageError if there is none."""
        found = self.aliases(name).find(alias)
        if found is None:
            raise UsageError(f"there is no {name}@{alias} in the registry {self.store.uri}")
        return previous(found, name)

    def promote(self, asked: Promotion) -> Moved:
        """Has the alias stand for a version, and says so in its history.

        Raises MissedError if the alias has a gate, or a report is given, and the report is not one
        of this very archive that passes; ConflictError as `Aliases.move` does; for a rollback what
        `check_stood` raises.
        """
        check_alias(asked.alias)
        who, why = said_in_history("who", asked.who), said_in_history("why", asked.why)
        found = self.resolve(asked.reference)
        aliases = self.aliases(found.name)
        if asked.back:
            self.check_stood(found, asked.alias)
        elif asked.report is None:
            self._check_no_gate(found, asked.alias)
        audit = None
        if asked.report is not None:
            evaluate(asked.report, Reference(found.name, "", found.version), found.manifest.digest)
            audit = self._keep_report(found, asked.report)
        move = Move(who=who, why=why, to=found.version, back=asked.back, audit=audit)
        return aliases.move(Wanted(asked.alias, found.manifest.digest, move, asked.expect))

    def check_stood(self, found: Found, alias: str) -> None:
        """Raises UsageError if the alias never stood for this version, and UnsafeError if its
        bytes were others then."""
        known = self.aliases(found.name).find(alias)
        moves = [each for each in known.history if each.to == found.version] if known else []
        if not moves:
            raise UsageError(
                f"{found.name}@{alias} never stood for {found.version}: there is no way back to it;"
                " promote it"
            )
        digest = moves[-1].digest  # None in histories that were begun before it was written
        if digest not in (None, found.manifest.digest):
            raise UnsafeArchiveError(
                f"{found.name}@{alias} stood for {found.version} with digest {digest}, and it now"
                f" has {found.manifest.digest}: it was changed since; look at who may write there"
            )

    def _check_no_gate(self, found: Found, alias: str) -> None:
        if alias in self.gates(found.name).required:
            raise MissedError(
                f"{found.name}@{alias} has a gate: promote {found.version} with --gate and an audit"
                f" report that passes, of digest {found.manifest.digest}"
            )

    def _keep_report(self, found: Found, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._folder(found.name, found.version).write(f"audits/{digest}.json", data)
        return digest

    def gates(self, name: str) -> Gates:
        """Which of the name's aliases move only with a passing report."""
        return read_gates(self._folder(check_name(name)))

    def set_gate(self, name: str, change: GateChange) -> tuple[Gates, bool]:
        """As `archives.registry.gates.set_gate`. Raises UsageError for a name that is not there."""
        if name not in self.inventory():
            raise self._missing(name, "")
        return set_gate(self._folder(name), change)

    def inventory(self, name: str = "") -> dict[str, Listed]:
        """What is there, by the archives' names; or of one name alone."""
        return read_inventory(self.store, name)

    def versions(self, name: str) -> list[str]:
        """The published versions of a name, the oldest number first."""
        listed = self.inventory(check_name(name)).get(name)
        return sorted(listed.versions, key=version_order) if listed else []

    def uri_of(self, found: Found) -> str:
        """Where its archive lies."""
        return f"{self._folder(found.name, found.version).uri}/{found.name}{SUFFIX}"

    def _manifest(self, target: Store) -> Manifest:
        try:
            return Manifest.from_json(target.read(MANIFEST_NAME))
        except ArchiveError as error:
            raise UnsafeArchiveError(f"{target.uri}: {error}") from error
        except RecursionError as error:
            raise UnsafeArchiveError(f"{target.uri}/{MANIFEST_NAME} is nested too deep") from error

    def _folder(self, name: str, version: str = "") -> Store:
        return self.store.below(f"{name}/{version}/" if version else f"{name}/")


def _copy(source: Path, copy: Path) -> None:
    try:
        shutil.copyfile(source, copy)
    except OSError as error:
        raise ArchiveError(f"{source} cannot be read: {error.strerror}") from error

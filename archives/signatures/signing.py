"""Signatures of archives: NAME.mar.sig beside NAME.mar, a DSSE envelope signed with Ed25519.

Its payload names the archive's bytes; whoever holds one of several known keys vouches for them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from archives.errors import UnsafeError, UsageError, shortened
from archives.names import SIGNATURE_SUFFIX
from archives.signatures.envelope import (
    MAX_SIGNATURE,
    MAX_SIGNATURES,
    Envelope,
    Signature,
    fields,
    strict_json,
)
from archives.signatures.keys import PrivateKey, PublicKey, read_private_key, read_public_keys
from archives.verified_copy import verified_copy

__all__ = [
    "MAX_SIGNATURE",
    "PAYLOAD_TYPE",
    "SIGNATURE_SUFFIX",
    "MalformedSignatureError",
    "MissingSignatureError",
    "OtherBytesError",
    "PrivateKey",
    "PublicKey",
    "SignatureError",
    "Statement",
    "UnknownKeyError",
    "WrongSignatureError",
    "adds_signatures",
    "check_signature",
    "check_statement",
    "read_private_key",
    "read_public_keys",
    "sign",
    "signature_of",
]

PAYLOAD_TYPE = "application/vnd.whybox.archive+json"
SCHEMA_VERSION = 1
DIGEST = re.compile("[0-9a-f]{64}")


class SignatureError(UnsafeError):
    """An archive for which no known key vouches. problem: why, in a word."""

    problem: ClassVar[str] = "signature"


class MissingSignatureError(SignatureError):
    """There is no signature."""

    problem = "missing"


class MalformedSignatureError(SignatureError):
    """It is no signature of an archive, or cannot be read."""

    problem = "malformed"


class UnknownKeyError(SignatureError):
    """It was made by none of the known keys."""

    problem = "unknown-key"


class WrongSignatureError(SignatureError):
    """It says that a known key made it, which has not: it, or what it is of, was changed."""

    problem = "wrong"


class OtherBytesError(SignatureError):
    """It is of another archive."""

    problem = "other-bytes"


@dataclass(frozen=True)
class Statement:
    """What is signed.

    name, version, digest: the archive's, by its manifest. sha256 (hex), size (bytes): of the whole
    .mar file.
    """

    name: str
    version: str
    digest: str
    sha256: str
    size: int

    def to_json(self) -> bytes:
        """The same statement, the same bytes."""
        values = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Statement:
        """Raises ValueError, which says what was expected, for what is none."""
        values = strict_json(data)
        (number,) = fields(values, schema_version=int)
        if number != SCHEMA_VERSION:
            raise ValueError(f"expected schema_version {SCHEMA_VERSION}, found {number}")
        names = {"name": str, "version": str, "digest": str, "sha256": str, "size": int}
        statement = cls(*fields(values, **names))
        if len(values) > len(names) + 1:
            raise ValueError(f"expected no fields but schema_version, {', '.join(names)}")
        if not DIGEST.fullmatch(statement.digest) or not DIGEST.fullmatch(statement.sha256):
            raise ValueError("expected digest and sha256 to be 64 hexadecimal digits")
        return statement


def signature_of(archive: Path) -> Path:
    """Where an archive's signature is: ARCHIVE.sig beside it."""
    return archive.with_name(archive.name + SIGNATURE_SUFFIX)


def sign(archive: Path, key: PrivateKey) -> bytes:
    """The envelope, for ARCHIVE.sig. Signatures of this very archive by other keys, which are there
    already, stay in it.

    Verifies the archive first, and raises as `verify` does; nothing in it is loaded. Raises
    UsageError if what is there is no signature.
    """
    statement = _statement(archive)
    before = _signed_before(archive, statement)
    payload = before.payload if before else statement.to_json()
    there = before.signatures if before else ()
    others = [each for each in there if each.key_id != key.public.key_id]
    message = Envelope(PAYLOAD_TYPE, payload, ()).message()
    signatures = (*others, Signature(key.public.key_id, key.sign(message)))
    if len(signatures) > MAX_SIGNATURES:
        raise UsageError(
            f"{shortened(str(signature_of(archive)))} has {MAX_SIGNATURES} signatures, the most"
            " that are read; remove it, and sign again with the keys that are in use"
        )
    return Envelope(PAYLOAD_TYPE, payload, signatures).to_json()


def check_signature(archive: Path, keys: Sequence[PublicKey], signature: Path | None = None) -> str:
    """The id of the key among `keys` that vouches for the archive's bytes as they are now.

    signature: by default ARCHIVE.sig beside it. Whoever loads the archive afterwards gives a copy
    that nobody else can change. Raises SignatureError, and UsageError for an archive that cannot be
    read.
    """
    signature = signature_of(archive) if signature is None else signature
    shown, place = shortened(str(archive)), shortened(str(signature))
    envelope = _envelope(signature, shown, place)
    key = _signer(envelope, keys, place)
    try:
        # Of the bytes whose signature was verified, and no others.
        statement = Statement.from_json(envelope.payload)
    except ValueError as error:
        raise MalformedSignatureError(
            f"{place} was signed by {key.key_id}, but says nothing of an archive: {error}"
        ) from error
    _check_bytes(archive, statement, place)
    return key.key_id


def check_statement(archive: Path, signature: Path) -> None:
    """Checks that the signature says that it is of the archive's bytes as they are now; nobody
    vouches for it: no key is asked.

    Raises MissingSignatureError, MalformedSignatureError, OtherBytesError, and UsageError for an
    archive that cannot be read.
    """
    place = shortened(str(signature))
    envelope = _envelope(signature, shortened(str(archive)), place)
    try:
        statement = Statement.from_json(envelope.payload)
    except ValueError as error:
        raise MalformedSignatureError(f"{place} says nothing of an archive: {error}") from error
    _check_bytes(archive, statement, place)


def adds_signatures(before: bytes, after: bytes) -> bool:
    """Whether the envelope `after` has every signature of `before`, of the same payload. No key is
    asked; False for what is no envelope."""
    try:
        old, new = Envelope.from_json(before), Envelope.from_json(after)
    except ValueError:
        return False
    same = (old.payload_type, old.payload) == (new.payload_type, new.payload)
    return same and set(old.signatures) <= set(new.signatures)


def _envelope(signature: Path, archive: str, place: str) -> Envelope:
    try:
        envelope = Envelope.from_json(_read(signature, archive))
        if envelope.payload_type != PAYLOAD_TYPE:
            kind = shortened(repr(envelope.payload_type))
            raise ValueError(f"expected a payload of type {PAYLOAD_TYPE}, found {kind}")
    except ValueError as error:
        raise MalformedSignatureError(f"{place} is no signature of an archive: {error}") from error
    return envelope


def _check_bytes(archive: Path, statement: Statement, place: str) -> None:
    found, shown = _measured(archive), shortened(str(archive))
    if found != (statement.sha256, statement.size):
        raise OtherBytesError(
            f"{place} is the signature of {shortened(statement.name)!r}"
            f" {shortened(statement.version)!r} with sha256 {statement.sha256[:12]}... and"
            f" {statement.size} bytes; {shown} has {found[0][:12]}... and {found[1]} bytes: it was"
            " changed or replaced since. Fetch the archive that was signed, or have this one signed"
        )


def _signer(envelope: Envelope, keys: Sequence[PublicKey], place: str) -> PublicKey:
    """The key that made one of the envelope's signatures."""
    message = envelope.message()
    for each in envelope.signatures:
        for key in keys:  # whatever the hint says, which anybody can change
            if key.verifies(each.value, message):
                return key
    known = {key.key_id for key in keys}
    hints = [each.key_id for each in envelope.signatures]
    if any(not hint or hint in known for hint in hints):
        raise WrongSignatureError(
            f"{place} is wrong: it, or the payload in it, was changed after it was made; fetch it"
            " again, or have the archive signed again"
        )
    # Only what looks like a key's id is shown: the rest could write to a terminal what it likes.
    by = [hint if DIGEST.fullmatch(hint) else "something that is no key id" for hint in hints]
    raise UnknownKeyError(
        f"{place} was made by {' and '.join(by[:2])}{', ...' * (len(by) > 2)}; expected one of"
        f" the known keys: {', '.join(sorted(known)) or 'none'}"
    )


def _read(signature: Path, archive: str) -> bytes:
    """Raises MissingSignatureError, and ValueError for what cannot be read or is too large."""
    if not signature.exists():
        raise MissingSignatureError(
            f"{archive} is not signed: there is no {shortened(str(signature))}; python -m archives"
            " sign writes it"
        )
    if not signature.is_file():
        raise ValueError("expected a file")
    try:
        with signature.open("rb") as file:
            data = file.read(MAX_SIGNATURE + 1)
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from error
    if len(data) > MAX_SIGNATURE:
        raise ValueError(f"expected at most {MAX_SIGNATURE} bytes, found more")
    return data


def _measured(archive: Path) -> tuple[str, int]:
    """sha256 (hex) and size in bytes, of the same bytes."""
    digest, size = hashlib.sha256(), 0
    try:
        with archive.open("rb") as file:
            while chunk := file.read(1024**2):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        shown = shortened(str(archive))
        raise UsageError(f"the archive {shown} cannot be read: {error.strerror}") from error
    return digest.hexdigest(), size


def _statement(archive: Path) -> Statement:
    """Of a copy, so that what is signed is what was verified, whoever can write to the archive."""
    with verified_copy(archive) as (copy, manifest):
        return Statement(manifest.name, manifest.version, manifest.digest, *_measured(copy))


def _signed_before(archive: Path, statement: Statement) -> Envelope | None:
    """What is there already of this very archive; other archives' signatures are of no use."""
    signature = signature_of(archive)
    try:
        envelope = Envelope.from_json(_read(signature, str(archive)))
    except MissingSignatureError:
        return None
    except ValueError as error:
        raise UsageError(
            f"{shortened(str(signature))} is there, and no signature ({error}); remove it first"
        ) from error
    if envelope.payload_type != PAYLOAD_TYPE:
        return None
    try:
        return envelope if Statement.from_json(envelope.payload) == statement else None
    except ValueError:  # of a format that this version does not know: a new one replaces it
        return None

"""Ed25519 keys and their PEM files: PKCS #8 for private ones, SubjectPublicKeyInfo for public."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from archives.errors import UsageError, shortened
from archives.private_file import create_private
from archives.signatures.variables import KEY_VARIABLE, PASSPHRASE_VARIABLE

MAX_KEY_FILE = 16 * 1024
BEGINNING = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
PRIVATE, ENCRYPTED, PUBLIC = "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "PUBLIC KEY"
KEY_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


class ExposedKeyWarning(UserWarning):
    """The file of a private key is open to others than its owner."""


@dataclass(frozen=True)
class PublicKey:
    """key_id: sha256 (hex) of the key's DER, its SubjectPublicKeyInfo."""

    key_id: str
    _key: Ed25519PublicKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, key: Ed25519PublicKey) -> PublicKey:
        der = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(hashlib.sha256(der).hexdigest(), key)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key's private half made `signature` of `message`."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def pem(self) -> str:
        """As a file has it."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()


@dataclass(frozen=True)
class PrivateKey:
    """Signs; nothing of it is shown but its public half."""

    public: PublicKey
    _key: Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, key: Ed25519PrivateKey) -> PrivateKey:
        return cls(PublicKey.of(key.public_key()), key)

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new one, of the system's random numbers."""
        return cls.of(Ed25519PrivateKey.generate())

    def sign(self, message: bytes) -> bytes:
        """64 bytes, always the same for the same message."""
        return self._key.sign(message)

    def pem(self, passphrase: bytes | None) -> str:
        """As a file has it, encrypted if there is a passphrase."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase)
            if passphrase
            else serialization.NoEncryption(),
        ).decode()


def write_keys(folder: Path, name: str) -> tuple[PublicKey, Path, Path]:
    """Makes a pair of keys: the public one, the private file (mode 0600, encrypted where
    WHYBOX_SIGNING_PASSPHRASE is set) and the public file.

    folder: made, for its owner alone, if it is not there. Raises UsageError, and writes nothing,
    where one of the files is there already.
    """
    if not KEY_NAME.fullmatch(name):
        raise UsageError(f"--name: expected letters, digits, '_', '-' and '.', got {name[:100]!r}")
    private, public = folder / f"{name}-private.pem", folder / f"{name}-public.pem"
    key = PrivateKey.generate()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if there := [path.name for path in (private, public) if os.path.lexists(path)]:
            raise UsageError(
                f"{folder} holds {' and '.join(there)} already, and a key is never overwritten;"
                " give another --name or --output"
            )
        create_private(private, key.pem(passphrase()))
        try:
            with public.open("x") as file:
                file.write(key.public.pem())
        except OSError:
            private.unlink()
            raise
    except OSError as error:
        raise UsageError(f"{folder}: no key can be written there: {error.strerror}") from error
    return key.public, private, public


def read_private_key(path: Path | None) -> PrivateKey:
    """From a PEM file, or if there is none from WHYBOX_SIGNING_KEY, which holds the PEM itself.

    WHYBOX_SIGNING_PASSPHRASE decrypts it where it is encrypted. Warns (ExposedKeyWarning) of a file
    that others can read: refusing it would refuse the secrets that clusters mount. Raises
    UsageError, without a word of the key, for what is no Ed25519 key.
    """
    if path is not None:
        data, source = read_key_file(path), shown(path)
    else:
        data, source = os.environ.get(KEY_VARIABLE, "").encode(), KEY_VARIABLE
        if not data:
            raise UsageError(
                f"no key to sign with: give --key FILE, or its PEM text in {KEY_VARIABLE};"
                " python -m archives keygen makes one"
            )
    label = _label(data, source, (PRIVATE, ENCRYPTED))
    password = passphrase() if label == ENCRYPTED else None
    if label == ENCRYPTED and not password:
        raise UsageError(f"{source} is encrypted: set {PASSPHRASE_VARIABLE} to its passphrase")
    try:
        key = serialization.load_pem_private_key(data, password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without the library's words, and their traceback: they may quote what they read.
        why = f"; or {PASSPHRASE_VARIABLE} is wrong" if password else ""
        raise UsageError(f"{source} is damaged, or no Ed25519 key{why}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _other_kind(source, key)
    return PrivateKey.of(key)


def read_public_keys(paths: Sequence[Path]) -> tuple[PublicKey, ...]:
    """Of PEM files, each key once. Raises UsageError for what is no Ed25519 public key."""
    found = {}
    for path in paths:
        data, source = read_key_file(path), shown(path)
        _label(data, source, (PUBLIC,))
        try:
            key = serialization.load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UsageError(f"{source} is damaged, or no Ed25519 key") from error
        if not isinstance(key, Ed25519PublicKey):
            raise _other_kind(source, key)
        each = PublicKey.of(key)
        found[each.key_id] = each
    return tuple(found.values())


def passphrase() -> bytes | None:
    """WHYBOX_SIGNING_PASSPHRASE; None where it is empty or not set."""
    return os.environ.get(PASSPHRASE_VARIABLE, "").encode() or None


def _warn_if_exposed(path: Path) -> None:
    """An ExposedKeyWarning for a file that its group or everybody can read or change."""
    status = path.stat()
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        warnings.warn(
            f"{shortened(str(path))} is open to others (mode"
            f" {stat.S_IMODE(status.st_mode):04o}): chmod 600 it, and think of a new key",
            ExposedKeyWarning,
            stacklevel=3,
        )


def shown(path: Path) -> str:
    """A key's path for a message; the key itself, where it was given for a path, is not shown."""
    return "what was given" if "-----" in str(path) else shortened(str(path))


def read_key_file(path: Path) -> bytes:
    """At most a little more than MAX_KEY_FILE bytes; warns as `read_private_key` does. Raises
    UsageError."""
    if "-----" in str(path):
        raise UsageError("expected the path of a key's file, got what looks like the key itself")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE + 1)
        if b"PRIVATE KEY" in data:
            _warn_if_exposed(path)
    except (OSError, ValueError) as error:  # a path with a null character
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"the key {shown(path)} cannot be read: {why}") from error
    return data


def _label(data: bytes, source: str, expected: tuple[str, ...]) -> str:
    """What the one PEM block says it is."""
    labels: list[str] = [label.decode() for label in BEGINNING.findall(data)]
    if len(data) > MAX_KEY_FILE or len(labels) != 1 or labels[0] not in expected:
        found = "a file too large for a key" if len(data) > MAX_KEY_FILE else None
        found = found or ", ".join(labels[:3]) or "none"
        advice = "python -m archives keygen makes both files"
        if expected == (PUBLIC,) and any("PRIVATE" in label for label in labels):
            advice = "a private key stays with whoever signs"
        raise UsageError(
            f"{source}: expected one PEM block, {' or '.join(expected)}, found {found}; {advice}"
        )
    return labels[0]


def _other_kind(source: str, key: object) -> UsageError:
    kind = type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey")
    return UsageError(
        f"{source} is a key for {kind}; expected Ed25519, as python -m archives keygen makes"
    )

"""Signatures as sigstore's model-signing makes them: ARCHIVE.sigstore.json, by a key for an
elliptic curve. An extra: pip install 'whybox[sigstore]'.

Its keyless way asks sigstore's servers who signs, and is for its own command line.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from archives.errors import UsageError, one_line, shortened
from archives.signatures.keys import passphrase, read_key_file
from archives.signatures.signing import (
    MAX_SIGNATURE,
    MalformedSignatureError,
    MissingSignatureError,
    OtherBytesError,
    SignatureError,
    UnknownKeyError,
    WrongSignatureError,
)
from archives.verified_copy import verified_copy

BUNDLE_SUFFIX = ".sigstore.json"
CURVES = ("secp256r1", "secp384r1", "secp521r1")


def signature_of(archive: Path) -> Path:
    """Where the bundle is: ARCHIVE.sigstore.json beside it."""
    return archive.with_name(archive.name + BUNDLE_SUFFIX)


def sign(archive: Path, key: Path | None) -> tuple[bytes, str]:
    """The bundle, and the id of the key: sha256 (hex) of its public half's DER.

    Verifies the archive first, and raises as `verify` does. WHYBOX_SIGNING_PASSPHRASE decrypts the
    key. Raises UsageError without the extra, and for what is no such key.
    """
    if key is None:
        raise UsageError("model-signing takes its key from a file: give --key FILE")
    public = _checked_private(key)
    config = _library("signing").Config()
    with verified_copy(archive) as (copy, _):
        bundle = copy.with_name("bundle" + BUNDLE_SUFFIX)
        config.use_elliptic_key_signer(private_key=key, password=passphrase())
        config.sign(copy, bundle)
        return bundle.read_bytes(), _key_id(public)


def check_signature(archive: Path, keys: Sequence[Path], signature: Path | None = None) -> str:
    """The id of the key that vouches for the archive's bytes as they are now; as
    `archives.signatures.signing.check_signature`, with files of public keys."""
    signature = signature_of(archive) if signature is None else signature
    if not keys:
        raise UsageError("--with model-signing: give --public-key FILE, too")
    known = [(key, _checked_public(key)) for key in keys]
    verifying = _library("verifying")
    place = shortened(str(signature))
    if not signature.exists():
        raise MissingSignatureError(
            f"{shortened(str(archive))} is not signed: there is no {place}; python -m archives sign"
            " --with model-signing writes it"
        )
    if not signature.is_file() or signature.stat().st_size > MAX_SIGNATURE:
        raise MalformedSignatureError(
            f"{place} is no signature: expected a file of at most {MAX_SIGNATURE} bytes"
        )
    refused: SignatureError | None = None
    for path, key in known:
        config = verifying.Config().use_elliptic_key_verifier(public_key=path)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # it prints, where --json is printed
                config.verify(archive, signature)
        except Exception as error:  # of whatever kind: the bundle's parser has many
            found = _refusal(place, error)
            if refused is None or isinstance(refused, UnknownKeyError):
                refused = found
            continue
        return _key_id(key)
    assert refused is not None
    raise refused


def _refusal(place: str, error: Exception) -> SignatureError:
    text = one_line(error, 300)
    if isinstance(error, InvalidSignature):
        return WrongSignatureError(f"{place} is wrong: it was changed after it was made")
    if isinstance(error, ValueError) and text.startswith("Key mismatch"):
        return UnknownKeyError(f"{place} was made by none of the known keys")
    if isinstance(error, ValueError) and text.startswith("Signature mismatch"):
        return OtherBytesError(f"{place} is the signature of another archive: {text}")
    what = f"{type(error).__name__}: {text!r}"
    return MalformedSignatureError(f"{place} is no signature of an archive: {what}")


def _library(name: str) -> Any:
    try:
        if name == "signing":
            from model_signing import signing

            return signing
        from model_signing import verifying

        return verifying
    except ImportError as error:
        raise UsageError(
            f"--with model-signing needs what is not installed ({error}); pip install"
            " 'whybox[sigstore]'"
        ) from error


def _checked_private(path: Path) -> ec.EllipticCurvePublicKey:
    """Its public half."""
    data, password = read_key_file(path), passphrase()
    encrypted = b"ENCRYPTED" in data
    if encrypted and not password:
        raise UsageError(f"{path} is encrypted: set WHYBOX_SIGNING_PASSPHRASE to its passphrase")
    try:
        key = serialization.load_pem_private_key(data, password if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without the library's words: they may quote what they read.
        raise UsageError(f"{path} is no private key in PEM, or its passphrase is wrong") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _other_kind(path, key)
    return _checked_curve(path, key.public_key())


def _checked_public(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(read_key_file(path))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{path} is no public key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _other_kind(path, key)
    return _checked_curve(path, key)


def _checked_curve(path: Path, key: ec.EllipticCurvePublicKey) -> ec.EllipticCurvePublicKey:
    if key.curve.name not in CURVES:
        raise UsageError(f"{path}: expected a key for {', '.join(CURVES)}, got {key.curve.name}")
    return key


def _other_kind(path: Path, key: object) -> UsageError:
    kind = type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey")
    return UsageError(
        f"{path} is a key for {kind}; model-signing takes one for an elliptic curve, such as"
        " openssl ecparam -genkey -noout -name prime256v1 makes"
    )


def _key_id(key: ec.EllipticCurvePublicKey) -> str:
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()

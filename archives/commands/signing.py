"""keygen, sign: who vouches for an archive."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from archives.commands.command import DONE, Commands, add_command, tell
from archives.location import Fetched
from archives.signatures import model_signing
from archives.signatures.keys import ExposedKeyWarning, passphrase, read_private_key, write_keys
from archives.signatures.signing import check_signature, read_public_keys, sign, signature_of
from archives.stores.folder import FolderStore

OWN, SIGSTORE = "whybox", "model-signing"


def add_commands(commands: Commands) -> None:
    """keygen and sign."""
    make = add_command(commands, "keygen", _keygen, "make a pair of keys to sign archives with")
    make.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    make.add_argument(
        "--name", default="whybox", help="of the files: NAME-private.pem and NAME-public.pem"
    )

    write = add_command(commands, "sign", _sign, "sign archives: ARCHIVE.sig beside each")
    write.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    write.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="a private key; else its PEM text in WHYBOX_SIGNING_KEY. WHYBOX_SIGNING_PASSPHRASE"
        " decrypts it",
    )
    add_way(write)


def add_way(parser: argparse.ArgumentParser) -> None:
    """--with: whose signatures."""
    parser.add_argument(
        "--with",
        dest="way",
        choices=(OWN, SIGSTORE),
        default=OWN,
        help="whybox: Ed25519, in ARCHIVE.sig (the default); model-signing: sigstore's, with a key"
        " for an elliptic curve, in ARCHIVE.sigstore.json",
    )


def add_public_key(parser: argparse.ArgumentParser) -> None:
    """--public-key and --with, for `signers`."""
    parser.add_argument(
        "--public-key",
        action="append",
        default=[],
        type=Path,
        dest="public_keys",
        metavar="FILE",
        help="refuse archives without a signature by this key; several may be given, one of which"
        " suffices",
    )
    add_way(parser)


def signers(options: argparse.Namespace, archives: Sequence[Fetched]) -> dict[Path, str]:
    """Of each archive the id of the key that signed it, by its path; empty if no public key was
    given.

    options: of a parser to which `add_public_key` was applied. Raises SignatureError, and
    UsageError for keys that cannot be used.
    """
    if options.way == SIGSTORE:
        return {
            each.path: model_signing.check_signature(each.path, options.public_keys)
            for each in archives
        }
    if not options.public_keys:
        return {}
    keys = read_public_keys(options.public_keys)
    return {each.path: check_signature(each.path, keys, each.signature) for each in archives}


def _keygen(options: argparse.Namespace) -> int:
    key, private, public = write_keys(options.output, options.name)
    encrypted = passphrase() is not None
    values = {
        "key_id": key.key_id,
        "private": str(private),
        "public": str(public),
        "encrypted": encrypted,
    }
    how = "encrypted" if encrypted else "not encrypted: WHYBOX_SIGNING_PASSPHRASE was not set"
    lines = [
        f"key {key.key_id}",
        f"  private  {private}, which only you can read ({how}); keep it where archives are signed",
        f"  public   {public}, for all who verify",
    ]
    tell(options, values, "\n".join(lines))
    return DONE


def _sign(options: argparse.Namespace) -> int:
    with _warnings_told():  # all are signed before one signature is written
        if options.way == SIGSTORE:
            place = model_signing.signature_of
            found = [model_signing.sign(path, options.key) for path in options.archives]
        else:
            place, key = signature_of, read_private_key(options.key)
            found = [(sign(path, key), key.public.key_id) for path in options.archives]
    signed: list[dict[str, Any]] = []
    for path, (envelope, key_id) in zip(options.archives, found, strict=True):
        # For everybody to read, and all of it or nothing.
        FolderStore(path.parent).write(place(path).name, envelope)
        signed.append({"archive": str(path), "signature": str(place(path)), "key_id": key_id})
    lines = [f"{each['signature']}: signed by {each['key_id']}" for each in signed]
    tell(options, {"signed": signed}, "\n".join(lines))
    return DONE


@contextmanager
def _warnings_told() -> Iterator[None]:
    """Warnings of keys as lines of this command."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ExposedKeyWarning)
        try:
            yield
        finally:
            for each in caught:
                print(f"archives: {each.message}", file=sys.stderr)

from __future__ import annotations

import hashlib
import stat
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519

from archives.errors import UsageError
from archives.signatures.keys import (
    ExposedKeyWarning,
    PrivateKey,
    read_private_key,
    read_public_keys,
    write_keys,
)
from archives.signatures.variables import KEY_VARIABLE, PASSPHRASE_VARIABLE

# RFC 8410, section 10: the examples of a private and a public key.
RFC_PRIVATE = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC"
RFC_PUBLIC = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
OTHERS: dict[str, Any] = {
    "RSA": rsa.generate_private_key(65537, 2048),
    "EC": ec.generate_private_key(ec.SECP256R1()),
    "Ed448": ed448.Ed448PrivateKey.generate(),
    "X25519": x25519.X25519PrivateKey.generate(),
    "DSA": dsa.generate_private_key(1024),
}


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KEY_VARIABLE, PASSPHRASE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def pem(label: str, base64: str) -> str:
    return f"-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_the_standards_keys(tmp_path: Path) -> None:
    private = read_private_key(written(tmp_path / "a", pem("PRIVATE KEY", RFC_PRIVATE)))
    (public,) = read_public_keys([written(tmp_path / "b", pem("PUBLIC KEY", RFC_PUBLIC))])
    assert private.public == public
    der = bytes.fromhex("302a300506032b6570032100") + bytes.fromhex(
        "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
    )
    assert public.key_id == hashlib.sha256(der).hexdigest()
    assert public.verifies(private.sign(b"message"), b"message")
    assert not public.verifies(private.sign(b"message"), b"massage")
    assert not public.verifies(b"short", b"message")


@pytest.mark.parametrize("passphrase", ["", "a long pässphrase"])
def test_a_new_pair(passphrase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, passphrase)
    key, private, public = write_keys(tmp_path / "new" / "keys", "team.2")
    assert (private.name, public.name) == ("team.2-private.pem", "team.2-public.pem")
    assert [stat.S_IMODE(each.stat().st_mode) for each in (private.parent, private)] == [
        0o700,
        0o600,
    ]
    assert ("ENCRYPTED" in private.read_text()) == bool(passphrase)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_private_key(private).public == key
    assert read_public_keys([public, public]) == (key,)
    openssl = ["openssl", "pkey", "-in", str(private), "-pubout", "-passin", f"pass:{passphrase}"]
    assert subprocess.check_output(openssl, text=True) == public.read_text()


@pytest.mark.parametrize("name", ["k-private.pem", "k-public.pem"])
def test_no_key_is_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=f"holds {name} already"):
        write_keys(tmp_path, "k")
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["", "../k", "a/b", ".hidden", "a\n", "é"])
def test_names_of_keys(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--name: expected letters"):
        write_keys(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="give --key FILE, or its PEM text in WHYBOX_SIGNING_KEY"):
        read_private_key(None)
    key = PrivateKey.generate()
    monkeypatch.setenv(KEY_VARIABLE, key.pem(b"secret"))
    with pytest.raises(UsageError, match="WHYBOX_SIGNING_KEY is encrypted: set WHYBOX_SIGNING_PA"):
        read_private_key(None)
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "wrong")
    with pytest.raises(UsageError, match="or WHYBOX_SIGNING_PASSPHRASE is wrong"):
        read_private_key(None)
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "secret")
    assert read_private_key(None) == key


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_keys(kind: str, tmp_path: Path) -> None:
    key = OTHERS[kind]
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(UsageError, match=f"is a key for {kind}; expected Ed25519"):
        read_private_key(written(tmp_path / "private", private.decode()))
    with pytest.raises(UsageError, match=f"is a key for {kind}; expected Ed25519"):
        read_public_keys([written(tmp_path / "public", public.decode())])


PRIVATE_PEM, PUBLIC_PEM = pem("PRIVATE KEY", RFC_PRIVATE), pem("PUBLIC KEY", RFC_PUBLIC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found none"),
        (RFC_PRIVATE, "found none"),
        (PUBLIC_PEM, "expected one PEM block, PRIVATE KEY or ENCRYPTED PRIVATE KEY, found PUBLIC"),
        (PRIVATE_PEM * 2, "found PRIVATE KEY, PRIVATE KEY"),
        (pem("EC PRIVATE KEY", RFC_PRIVATE), "found EC PRIVATE KEY"),
        (pem("PRIVATE KEY", "AAAA" + RFC_PRIVATE), "is damaged, or no Ed25519 key$"),
        (pem("PRIVATE KEY", RFC_PUBLIC), "is damaged, or no Ed25519 key$"),
        (PRIVATE_PEM + " " * 20_000, "found a file too large for a key"),
    ],
)
def test_what_is_no_private_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_private_key(written(tmp_path / "key", text))
    assert "MC4CAQ" not in repr(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PRIVATE_PEM, "expected one PEM block, PUBLIC KEY, found PRIVATE KEY; a private key stays"),
        (PUBLIC_PEM * 2, "found PUBLIC KEY, PUBLIC KEY"),
        (pem("CERTIFICATE", RFC_PUBLIC), "found CERTIFICATE"),
        (pem("PUBLIC KEY", RFC_PRIVATE), "is damaged"),
    ],
)
def test_what_is_no_public_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_public_keys([written(tmp_path / "key", text)])


@pytest.mark.parametrize("name", ["none", ".", "a\0b"])
def test_files_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: "):
        read_private_key(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be read: "):
        read_public_keys([tmp_path / name])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_is_open_to_others_is_used_with_a_warning(mode: int, tmp_path: Path) -> None:
    path = written(tmp_path / "key", PRIVATE_PEM)
    path.chmod(mode)
    with pytest.warns(ExposedKeyWarning, match=rf"open to others \(mode {mode:04o}\): chmod 600"):
        assert read_private_key(path).public.verifies(b"", b"") is False


def test_nothing_of_a_key_is_shown() -> None:
    key = PrivateKey.generate()
    assert repr(key) == f"PrivateKey(public=PublicKey(key_id='{key.public.key_id}'))"

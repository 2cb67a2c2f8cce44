"""sigstore's model-signing, the real one, with keys in files; nothing here asks the internet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from archives.__main__ import main
from archives.signatures.keys import PrivateKey
from archives.signatures.model_signing import check_signature, signature_of
from archives.signatures.signing import SignatureError
from archives.signatures.variables import PASSPHRASE_VARIABLE
from tests.archives.test_verify import packed, tiny_files

pytest.importorskip("model_signing.signing")
PEM, SUBJECT = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


def pair(folder: Path, name: str, curve: ec.EllipticCurve, passphrase: bytes = b"") -> Path:
    """Writes a private key, and NAME.pub beside it."""
    key = ec.generate_private_key(curve)
    encryption: Any = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    path = folder / name
    path.touch(0o600)
    path.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption))
    (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(PEM, SUBJECT))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.mar"
    path.write_bytes(packed(tiny_files()))
    return path


def sign(archive: Path, key: Path) -> int:
    return main(["sign", str(archive), "--with", "model-signing", "--key", str(key)])


def problem(archive: Path, *keys: str) -> str:
    with pytest.raises(SignatureError) as caught:
        check_signature(archive, [archive.with_name(f"{key}.pub") for key in keys])
    return caught.value.problem


def test_signed_and_verified(
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = pair(tmp_path, "a", ec.SECP384R1(), b"hunter2")
    assert sign(archive, key) == 2
    assert "is encrypted: set WHYBOX_SIGNING_PASSPHRASE" in capsys.readouterr().err
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "hunter2")
    assert sign(archive, key) == 0
    bundle = json.loads(signature_of(archive).read_bytes())
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    capsys.readouterr()
    command = ["verify", "--static", str(archive), "--with", "model-signing", "--json"]
    assert main([*command, "--public-key", f"{key}.pub"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["archives"]
    assert len(found["signed_by"]) == 64
    assert main(command) == 2
    assert "give --public-key FILE" in capsys.readouterr().err


def test_what_does_not_hold(archive: Path, tmp_path: Path) -> None:
    curve = ec.SECP256R1()
    a, _ = pair(tmp_path, "a", curve), pair(tmp_path, "b", curve)
    assert problem(archive, "a") == "missing"
    assert sign(archive, a) == 0
    bundle, data = signature_of(archive), archive.read_bytes()
    assert check_signature(archive, [tmp_path / "b.pub", tmp_path / "a.pub"])
    assert problem(archive, "b") == "unknown-key"
    archive.write_bytes(data + b"\0")
    assert problem(archive, "b", "a") == "other-bytes"
    archive.write_bytes(data)
    good = json.loads(bundle.read_bytes())
    good["dsseEnvelope"]["payload"] = "A" * 8
    bundle.write_text(json.dumps(good))
    assert problem(archive, "a", "b") == "wrong"
    for broken in (b"", b"{}", b"[" * 9000, b"\xff", b" " * 100_000):
        bundle.write_bytes(broken)
        assert problem(archive, "a") == "malformed"


def test_keys_of_another_kind(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ed").write_text(PrivateKey.generate().pem(None))
    for key, message in (
        (tmp_path / "ed", "is a key for Ed25519; model-signing takes one for an elliptic curve"),
        (pair(tmp_path, "k", ec.SECP256K1()), "expected a key for secp256r1, secp384r1"),
        (archive, "is no private key in PEM"),
        (tmp_path / "none", "cannot be read"),
    ):
        assert sign(archive, key) == 2
        assert message in capsys.readouterr().err
    assert not signature_of(archive).exists()

"""keygen, sign, and verify with public keys, as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archives.__main__ import main
from archives.signatures.signing import signature_of
from archives.signatures.variables import KEY_VARIABLE, PASSPHRASE_VARIABLE
from archives.verify import verify
from tests.archives.test_verify import packed, tiny_files

PASSPHRASE = "correct horse battery staple"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KEY_VARIABLE, PASSPHRASE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.mar"
    path.write_bytes(packed(tiny_files()))
    return path


@pytest.fixture
def keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["keygen", "--output", str(tmp_path / "keys")]) == 0
    assert main(["keygen", "--output", str(tmp_path / "keys"), "--name", "other"]) == 0
    capsys.readouterr()
    return tmp_path / "keys"


def told(capsys: pytest.CaptureFixture[str], *command: str | Path) -> tuple[int, Any]:
    """Exit code and JSON of a command."""
    code = main([*map(str, command), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_from_key_to_verified(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, made = told(capsys, "keygen", "--output", tmp_path / "keys", "--name", "team")
    assert made | {"key_id": ""} == {
        "key_id": "",
        "private": str(tmp_path / "keys/team-private.pem"),
        "public": str(tmp_path / "keys/team-public.pem"),
        "encrypted": False,
    }
    code, signed = told(capsys, "sign", archive, "--key", made["private"])
    place, key = f"{archive}.sig", made["key_id"]
    assert code == 0
    assert signed == {
        "signed": [{"archive": str(archive), "signature": place, "key_id": key}],
    }
    assert Path(place).stat().st_mode & 0o444 == 0o444
    _, found = told(capsys, "verify", "--static", archive, "--public-key", made["public"])
    assert found["archives"][0]["signed_by"] == key
    assert found["archives"][0]["digest"] == verify(archive).digest
    assert told(capsys, "verify", "--static", archive)[1]["archives"][0]["signed_by"] is None
    assert main(["verify", "--static", str(archive), "--public-key", made["public"]]) == 0
    assert capsys.readouterr().out.endswith(f", signed by {key}\n")


def test_several_archives_are_signed_or_none(
    archive: Path, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mar"
    bad.write_bytes(b"no zip")
    key = str(keys / "whybox-private.pem")
    assert main(["sign", str(archive), str(bad), "--key", key]) == 2
    assert not signature_of(archive).exists()
    other = tmp_path / "other.mar"
    other.write_bytes(archive.read_bytes())
    assert main(["sign", str(archive), str(other), "--key", key]) == 0
    assert signature_of(archive).read_bytes() == signature_of(other).read_bytes()


def test_verify_refuses_before_it_reads_what_nobody_signed(
    archive: Path, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = ["--public-key", str(keys / "whybox-public.pem")]
    code, found = told(capsys, "verify", "--static", archive, *public)
    assert (code, found["error"]["type"]) == (5, "MissingSignatureError")
    assert main(["sign", str(archive), "--key", str(keys / "other-private.pem")]) == 0
    capsys.readouterr()
    code, found = told(capsys, "verify", "--static", archive, *public)
    assert (code, found["error"]["type"]) == (5, "UnknownKeyError")
    both = [*public, "--public-key", str(keys / "other-public.pem")]
    assert told(capsys, "verify", "--static", archive, *both)[0] == 0
    archive.write_bytes(b"no zip")
    code, found = told(capsys, "verify", "--static", archive, *both)
    assert (code, found["error"]["type"]) == (5, "OtherBytesError")


def test_a_key_that_is_open_to_others(
    archive: Path, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (keys / "whybox-private.pem").chmod(0o644)
    assert main(["sign", str(archive), "--key", str(keys / "whybox-private.pem")]) == 0
    said = capsys.readouterr().err
    assert said.startswith("archives: ")
    assert "open to others (mode 0644): chmod 600" in said
    assert said.count("\n") == 1


def test_nothing_of_a_key_is_printed(archive: Path, tmp_path: Path) -> None:
    """Whatever goes wrong, with keys and passphrases in files and the environment."""
    folder, secrets, printed = tmp_path / "keys", [PASSPHRASE], ""

    def run(*command: str | Path, key: str = "", passphrase: str = PASSPHRASE) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "archives", *map(str, command)],
            env={"PYTHONPATH": ":".join(sys.path), KEY_VARIABLE: key}
            | {PASSPHRASE_VARIABLE: passphrase},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    printed += run("keygen", "--output", folder)
    printed += run("keygen", "--output", folder, "--name", "plain", "--json", passphrase="")
    pems = [path.read_text() for path in sorted(folder.glob("*-private.pem"))]
    secrets += [line for pem in pems for line in pem.splitlines() if "-----" not in line]
    assert len(secrets) > 4
    printed += run("sign", archive, "--key", folder / "whybox-private.pem")
    printed += run("sign", archive, "--json", key=pems[0])
    assert signature_of(archive).exists()
    printed += run("sign", archive, key=pems[1], passphrase="")
    printed += run("sign", archive, "--json", key=pems[1], passphrase="wrong " + PASSPHRASE)
    for broken in (pems[0][:-60], pems[0] + pems[0], pems[0].replace("-", ""), pems[0][30:]):
        printed += run("sign", archive, "--json", key=broken)
    printed += run("sign", archive, "--key", pems[0])  # the text where a file's name belongs
    printed += run("verify", archive, "--public-key", folder / "plain-private.pem", "--json")
    assert [secret for secret in secrets if secret in printed] == []

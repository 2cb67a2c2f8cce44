"""`serve` where the configuration, or an option, names keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archives.__main__ import main
from archives.serving.server import DEFAULT_CONFIG, Ports, ServerOptions, start
from archives.signatures.keys import write_keys
from archives.signatures.signing import read_private_key, sign, signature_of
from tests.archives.test_verify import packed, tiny_files


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """With a key of its own beside it."""
    write_keys(tmp_path / "keys", "k")
    path = tmp_path / "config.properties"
    path.write_text(DEFAULT_CONFIG.read_text() + "archive_public_keys=keys/k-public.pem\n")
    return path


@pytest.mark.parametrize("way", ["configuration", "option"])
def test_what_nobody_signed_is_not_served(
    way: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "tiny.mar"
    archive.write_bytes(packed(tiny_files()))
    command = ["serve", "--archive", str(archive), "--folder", str(tmp_path / "serve")]
    command += ["--free-ports", "--json", "--config"]
    keys = ["--public-key", str(tmp_path / "keys/k-public.pem")]
    command += [str(config)] if way == "configuration" else [str(DEFAULT_CONFIG), *keys]
    assert main(command) == 5
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "MissingSignatureError"
    assert error["message"].startswith(f"{archive} is not signed: there is no {archive}.sig")
    assert not (tmp_path / "serve/config.properties").exists()


@pytest.mark.server
def test_what_a_known_key_signed_is_served(config: Path, archive: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.mar"
    own.write_bytes(archive.read_bytes())
    key = read_private_key(tmp_path / "keys/k-private.pem")
    signature_of(own).write_bytes(sign(own, key))
    with start(ServerOptions((own,), tmp_path / "s", config, Ports())) as server:
        server.wait_ready()
        assert "archive_public_keys" not in (tmp_path / "s/config.properties").read_text()
        assert server.models == ("small",)

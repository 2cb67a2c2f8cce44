"""New tokens of the real TorchServe, and what keeps it from giving one."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from archives.__main__ import main
from archives.serving import tokens
from archives.serving.processes import ServerState
from archives.serving.server import DEFAULT_CONFIG, Ports, Server, ServerError, ServerOptions, start
from archives.serving.tokens import KINDS, rotate

KEYS = {
    "management": {"key": "management", "expiration time": "2030-01-01T10:00:00.123456789Z"},
    "inference": {"key": "inference", "expiration time": "2030-01-01T10:00:00Z"},
    "API": {"key": "key-of-nobody"},
}


def ask(url: str, token: str) -> tuple[int, Any]:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
    return answer.status_code, answer.json()


def token_in(file: Path) -> str:
    assert file.stat().st_mode & 0o777 == 0o600
    return file.read_text().removeprefix("Authorization: Bearer ").rstrip("\n")


@pytest.fixture
def keys(server: Server) -> Iterator[Path]:
    """The real server's key file, which a test may spoil."""
    kept = server.key_file.read_bytes()
    yield server.key_file
    server.key_file.write_bytes(kept)
    server.key_file.chmod(0o600)


@pytest.fixture
def still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that nobody asks, with made-up keys."""
    monkeypatch.setattr(tokens, "_renew", lambda server, kind: None)
    (tmp_path / "key_file.json").write_text(json.dumps(KEYS))
    return Server(tmp_path, ServerState("nobody", 0, Ports(), ()))


@pytest.mark.server
def test_new_tokens_replace_the_old_ones(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {"inference": server.inference_token, "management": server.management_token}
    include = tmp_path / "token.conf"
    assert main(["rotate", "--folder", str(server.folder), "--nginx-include", str(include)]) == 0
    new = {"inference": server.inference_token, "management": server.management_token}
    urls = {
        "inference": f"{server.inference_url}/ping",
        "management": f"{server.management_url}/models",
    }
    for kind in KINDS:
        assert ask(urls[kind], old[kind])[1]["type"] == "InvalidKeyException"
        assert ask(urls[kind], new[kind])[0] == 200
        assert token_in(server.header_file(kind)) == new[kind]
    assert include.stat().st_mode & 0o777 == 0o600
    assert include.read_text() == (f'proxy_set_header Authorization "Bearer {new["inference"]}";\n')
    said = "".join(capsys.readouterr())
    assert "nginx -s reload" in said
    assert not any(token in said for token in (*old.values(), *new.values()))


@pytest.mark.server
def test_one_kind_alone(server: Server) -> None:
    inference, management = server.inference_token, server.management_token
    assert main(["rotate", "--folder", str(server.folder), "--kind", "management"]) == 0
    assert server.inference_token == inference
    assert server.management_token != management


@pytest.mark.server
def test_rotations_come_one_after_the_other(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: rotate(server, ["inference"]), range(16)))
    token = token_in(server.header_file("inference"))
    assert ask(f"{server.inference_url}/ping", token)[0] == 200


@pytest.mark.server
def test_key_of_another_server(
    server: Server, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys.write_text(json.dumps(KEYS))
    assert main(["rotate", "--folder", str(server.folder)]) == 1
    said = capsys.readouterr().err
    assert "gives no new token (status 400): the API key" in said
    assert "only a restart makes a new one" in said
    keys.unlink()
    with pytest.raises(ServerError, match="only a restart"):
        rotate(server, ["inference"])


@pytest.mark.server
def test_file_that_cannot_be_written_costs_no_token(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = server.key_file.read_bytes()
    for include, kind in (
        (tmp_path / "none" / "token.conf", "inference"),
        (tmp_path, "inference"),
        (tmp_path / "token.conf", "management"),
    ):
        command = ["rotate", "--folder", str(server.folder), "--kind", kind]
        assert main([*command, "--nginx-include", str(include)]) == 2
    said = capsys.readouterr().err
    assert "cannot be written; the server's tokens are as they were" in said
    assert "a proxy passes no request to the management address" in said
    assert server.key_file.read_bytes() == before


@pytest.mark.server
def test_expired_tokens_are_replaced(archive: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(DEFAULT_CONFIG.read_text().replace("min=600", "min=0.05"))  # three seconds
    options = ServerOptions((archive,), tmp_path / "serve", config, Ports())
    with start(options) as server:
        url = f"{server.inference_url}/ping"
        status = 0
        for _ in range(600):
            with suppress(OSError, ServerError):
                status, body = ask(url, server.inference_token)
                if status == 400:
                    break
            time.sleep(0.1)
        assert (status, body["type"]) == (400, "InvalidKeyException")
        rotate(server, ["inference"])
        assert ask(url, server.inference_token)[0] == 200


def test_no_server_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rotate", "--folder", str(tmp_path)]) == 1
    assert f"no server runs in {tmp_path}; start one" in capsys.readouterr().err


def test_server_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "key_file.json").write_text(json.dumps(KEYS))
    silent = Server(tmp_path, ServerState("nobody", 0, Ports(management=1), ()))
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:1 does not answer"):
        rotate(silent, ["inference"])


def test_until_when(still: Server) -> None:
    assert rotate(still, ["management"]).isoformat() == "2030-01-01T10:00:00.123456+00:00"


def test_token_that_would_change_nginxs_configuration(still: Server, tmp_path: Path) -> None:
    include = tmp_path / "token.conf"
    keys = {**KEYS, "inference": {**KEYS["inference"], "key": 'x"; access_log /etc/passwd; #'}}
    still.key_file.write_text(json.dumps(keys))
    with pytest.raises(ServerError, match="holds no token"):
        rotate(still, ["inference"], include)
    assert not include.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes as another user")
def test_files_remain_the_servers_users(still: Server, tmp_path: Path) -> None:
    nobody = 65534
    with tempfile.TemporaryDirectory() as folder:
        still.folder = Path(folder)
        still.key_file.write_text(json.dumps(KEYS))
        for path in (still.folder, still.key_file):
            os.chown(path, nobody, nobody)
        rotate(still, ["inference"], tmp_path / "token.conf")
        assert still.header_file("inference").stat().st_uid == nobody
    assert (tmp_path / "token.conf").stat().st_uid == 0

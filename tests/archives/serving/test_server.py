from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from archives.__main__ import main
from archives.serving.server import (
    Ports,
    Server,
    ServerConfigError,
    ServerConflictError,
    ServerError,
    ServerOptions,
    running,
    start,
)
from archives.verify import TORCHSERVE_MANIFEST, UnsafeArchiveError
from handlers.endpoint.caller import token_id
from handlers.manifest import MANIFEST_NAME, Manifest
from tests.conftest import needs_curl, random_picture

pytestmark = pytest.mark.server
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
LISTENING = "0A"


def png(height: int = 90, width: int = 120) -> bytes:
    buffer = io.BytesIO()
    picture = random_picture(height, width)
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def ask(
    url: str, token: str | None = None, data: bytes | None = None, method: str | None = None
) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=data, method=method)
    # urllib's own default, a form, would make TorchServe look for fields.
    request.add_header("Content-Type", "image/png")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with DIRECT.open(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def listeners(processes: list[int]) -> set[tuple[str, int]]:
    """Addresses on which these processes listen, by /proc."""
    sockets = set()
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with suppress(FileNotFoundError):  # It was closed meanwhile.
                sockets |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(descriptor)))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING and words[9] in sockets:
                address, port = words[1].split(":")
                found.add((readable(bytes.fromhex(address)), int(port, 16)))
    return found


def readable(address: bytes) -> str:
    """An address as /proc has it: groups of four bytes, each back to front."""
    groups = [address[start : start + 4][::-1] for start in range(0, len(address), 4)]
    raw = b"".join(groups).removeprefix(b"\0" * 10 + b"\xff\xff")
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_listens_on_loopback_only(server: Server) -> None:
    ports = vars(server.ports).values()
    assert listeners(server.processes()) == {("127.0.0.1", port) for port in ports}


@pytest.mark.parametrize("token", [None, "wrong"])
def test_tokens_are_required(server: Server, token: str | None) -> None:
    for url in (f"{server.inference_url}/predictions/demo", f"{server.management_url}/models"):
        code, body = ask(url, token)
        assert (code, json.loads(body)["type"]) == (400, "InvalidKeyException")


def test_models_are_not_changed_by_requests(server: Server) -> None:
    url, token = server.management_url, server.management_token
    assert ask(f"{url}/models?url=0.mar&model_name=more", token, method="POST")[0] == 405
    assert ask(f"{url}/models/demo/1.0", token, method="DELETE")[0] == 405


def test_large_requests_reach_the_handler(server: Server) -> None:
    url = f"{server.inference_url}/predictions/demo"
    code, body = ask(url, server.inference_token, bytes(20_000_000))
    assert code == 400
    assert json.loads(body)["error"]["type"] == "PictureError"


def test_only_the_owner_reads_the_keys_and_no_log_has_them(server: Server) -> None:
    assert server.folder.stat().st_mode & 0o777 == 0o700
    assert server.key_file.stat().st_mode & 0o777 == 0o600
    ask(f"{server.inference_url}/predictions/demo", server.inference_token, png())
    for log in server.logs.iterdir():
        text = log.read_text()
        assert server.inference_token not in text
        assert server.management_token not in text


def test_a_folder_has_one_server(
    server: Server, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--archive", str(archive), "--folder", str(server.folder)]) == 6
    assert f"runs already in {server.folder}, at {server.inference_url}" in capsys.readouterr().err


def test_a_port_has_one_server(server: Server, archive: Path, tmp_path: Path) -> None:
    taken = Ports(metrics=server.ports.inference)
    with pytest.raises(ServerConflictError, match=r"\(metrics\) on 127.0.0.1 cannot be used"):
        start(ServerOptions((archive,), tmp_path / "serve", ports=taken))


def test_tampered_archive_is_not_loaded(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mar"
    bad.write_bytes(archive.read_bytes().replace(b"class ExplainHandler", b"class ExplainHandleR"))
    command = ["serve", "--archive", str(bad), "--folder", str(tmp_path / "serve"), "--free-ports"]
    assert main(command) == 5
    assert f"{bad} was tampered with or damaged: explain_handler.py" in capsys.readouterr().err
    assert running(tmp_path / "serve") is None
    with pytest.raises(UnsafeArchiveError):
        start(ServerOptions((archive, bad), tmp_path / "serve", ports=Ports()))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"archives": ()}, "no archive to serve"),
        ({"java_home": Path("no-java")}, "there is no bin/java in"),
        ({"config": Path("no.properties")}, "no.properties cannot be read"),
        ({"folder": Path(__file__).parent}, "holds other files"),
        ({"folder": Path("long" * 30)}, "is too long"),
    ],
)
def test_bad_options(
    change: dict[str, Any],
    text: str,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ServerOptions((archive,), Path("serve"), ports=Ports())
    with pytest.raises(ServerConfigError, match=text):
        start(replace(options, **change))


def test_other_addresses_are_refused(archive: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text("inference_address=http://0.0.0.0:8080\n")
    with pytest.raises(ServerConfigError, match=r"is 'http://0.0.0.0:8080'; expected http://127"):
        start(ServerOptions((archive,), tmp_path / "serve", config))


def test_failed_start_shows_the_log(archive: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text("vmargs=-XX:NoSuchOption\n")
    options = ServerOptions((archive,), tmp_path / "serve", config, Ports())
    with pytest.raises(ServerError, match="NoSuchOption") as caught, start(options) as server:
        server.wait_ready(60)
    assert str(tmp_path / "serve" / "logs") in str(caught.value)
    assert not (tmp_path / "serve" / "server.json").exists()


@pytest.mark.full
def test_model_that_does_not_load_shows_why(archive: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mar"
    write_broken(archive, broken)
    options = ServerOptions((archive, broken), tmp_path / "serve", ports=Ports())
    with (
        pytest.raises(ServerError, match="could not load broken\n") as caught,
        start(options) as server,
    ):
        server.wait_ready()
    assert "ValueError: the handler is broken" in str(caught.value)
    assert server.processes() == []


def write_broken(archive: Path, target: Path) -> None:
    handler = b"def handle(data, context):\n raise ValueError('the handler is broken')"
    with zipfile.ZipFile(archive) as opened, zipfile.ZipFile(target, "w") as out:
        manifest = Manifest.from_json(opened.read(MANIFEST_NAME))
        files = dict(manifest.files)
        files["explain_handler.py"] = hashlib.sha256(handler).hexdigest()
        changed = {
            "explain_handler.py": handler,
            MANIFEST_NAME: replace(manifest, name="broken", files=files).to_json(),
            TORCHSERVE_MANIFEST: opened.read(TORCHSERVE_MANIFEST).replace(b"small", b"broken"),
        }
        for name in opened.namelist():
            out.writestr(name, changed.get(name) or opened.read(name))


def test_nothing_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no server runs in {tmp_path}\n"


def serve(archive: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "archives", "serve", "--archive", str(archive)]
    command += ["--folder", str(folder), "--free-ports"]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@needs_curl
def test_serve_try_and_stop(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, errors = serve(archive, tmp_path / "serve").communicate(timeout=200)
    server = running(tmp_path / "serve")
    assert server is not None, errors
    processes = server.processes()
    try:
        (tmp_path / "picture.jpg").write_bytes(png())
        [line] = [line for line in said.splitlines() if "curl" in line]
        line = line.replace("@picture.jpg", f"@{tmp_path}/picture.jpg")
        answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert json.loads(answer.stdout)["picture"] == {"width": 120, "height": 90}
        assert server.inference_token not in said
        assert f"in logs inference is {token_id(server.inference_token)}\n" in said
    finally:
        assert main(["stop", "--folder", str(tmp_path / "serve")]) == 0
    assert len(processes) == 2
    assert all(ended(process) for process in processes)
    assert sorted(file.name for file in server.folder.iterdir()) == [
        "config.properties",
        "logs",
        "metrics.yaml",
        "whybox.lock",
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_start_leaves_no_process(
    number: signal.Signals, code: int, archive: Path, tmp_path: Path
) -> None:
    with serve(archive, tmp_path / "serve") as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "TorchServe has started and loads small ...\n"
        server = running(tmp_path / "serve")
        assert server is not None
        processes = server.processes()
        command.send_signal(number)
        assert command.wait(60) == code
    assert processes
    assert server.processes() == []
    assert all(ended(process) for process in processes)

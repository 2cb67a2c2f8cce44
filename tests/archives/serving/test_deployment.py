"""Archives exchanged on a real TorchServe: nothing is lost, and what fails leaves the old one."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from archives.__main__ import main
from archives.errors import ConflictError
from archives.serving.deployment import (
    DeployConflictError,
    DeployError,
    Deployment,
    DeployOptions,
    deploy,
)
from archives.serving.endpoint_check import OtherAnswerError
from archives.serving.management import ManagementError
from archives.serving.rollback import AliasNotMovedError, roll_back
from archives.serving.server import Ports, Server, ServerOptions, running, start
from archives.serving.tokens import rotate
from archives.signatures.keys import write_keys
from archives.signatures.signing import MissingSignatureError
from archives.verify import UnsafeArchiveError, verify
from handlers.manifest import ArchiveError
from tests.archives.altered import altered, other_golden, with_golden
from tests.stream import EXPLAIN, PREDICT, SLOW, Stream, versions_by_request
from tests.test_endpoint import PNG, post_to

pytestmark = pytest.mark.server
BROKEN = b"def handle(data, context):\n raise ValueError('the handler is broken')"


@pytest.fixture(scope="module")
def store(demo_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VERSION.mar of the demo: 1.0, 2.0, a 3.0 whose golden sample is another's, a 4.0 that does
    not load, and one.mar, which is another 1.0."""
    folder = tmp_path_factory.mktemp("store")
    first = with_golden(demo_archive, folder / "golden.mar", PNG)
    names = tuple(f"new {name}" for name in verify(first).categories)
    altered(first, folder / "1.0.mar", version="1.0")
    altered(first, folder / "2.0.mar", version="2.0", categories=names)
    other_golden(first, folder / "3.0.mar", version="3.0")
    altered(first, folder / "4.0.mar", {"explain_handler.py": BROKEN}, version="4.0")
    altered(first, folder / "one.mar", version="1.0", categories=names)
    return folder


@pytest.fixture(scope="module")
def served(store: Path) -> Iterator[Server]:
    """A server that can be deployed to, which begins with 1.0."""
    with tempfile.TemporaryDirectory() as folder:
        options = ServerOptions(
            (store / "1.0.mar",), Path(folder, "serve"), ports=Ports(), deployable=True
        )
        with start(options) as started:
            started.wait_ready()
            yield started


@pytest.fixture
def server(served: Server, store: Path) -> Server:
    """1.0 is what it serves, and all."""
    deploy(served, store / "1.0.mar", DeployOptions())
    expect_only(served, store / "1.0.mar")
    return served


def expect_only(server: Server, archive: Path) -> None:
    """TorchServe, its model store, server.json and the endpoint agree on this archive."""
    manifest = verify(archive)
    management = server.management
    assert management.names() == (manifest.name,)
    [registered] = management.versions(manifest.name, "all")
    assert management.versions(manifest.name) == (registered,)
    other = running(server.folder)
    assert other is not None
    [of] = other.served
    assert (of.version, of.digest, of.file) == (manifest.version, manifest.digest, registered.file)
    assert management.digest(manifest.name, "") == manifest.digest
    assert [each.name for each in server.model_store.iterdir()] == [registered.file]
    assert other.waiting() == ()
    assert set(answered(server)) <= set(manifest.categories)


def answered(server: Server, version: str = "") -> list[str]:
    """Names of the boxes in the picture."""
    answer = post_to(server, f"predictions/demo{version}", files={"picture": PNG})
    assert answer.status_code == 200, answer.text
    return [name for row in answer.json() for name in row if name != "score"]


def exchange_twice(server: Server, store: Path, kinds: Any) -> int:
    """Under a stream of requests 2.0 is deployed, and 1.0 again; how many were answered."""
    switched: list[float] = []

    def tell(step: str) -> None:
        if step.endswith("is the default"):
            switched.append(time.monotonic())

    with Stream(server, "demo", kinds) as stream:
        done: list[Deployment] = [deploy(server, store / "2.0.mar", DeployOptions(), tell)]
        forth = time.monotonic()
        stream.wait_for_all()
        back = time.monotonic()
        moved: list[str] = []
        move = lambda: moved.append("1.0")  # noqa: E731
        done.append(roll_back(server, store / "1.0.mar", move, DeployOptions(), tell))
        again = time.monotonic()
        stream.wait_for_all()
    assert {each.status for each in stream.asked} == {200}
    versions = versions_by_request(server, stream.asked)
    assert versions.keys() == {each.request_id for each in stream.asked}
    assert len(versions) == len(stream.asked)
    for each in stream.asked:
        version = versions[each.request_id]
        if each.ended < switched[0] or each.begun > again:
            assert version == "1.0"
        if forth < each.begun and each.ended < back:
            assert version == "2.0"
    # One that was at work when the default changed had its answer from the old version.
    assert any(
        each.begun < switched[0] < each.ended and versions[each.request_id] == "1.0"
        for each in stream.asked
        if each.slow
    )
    assert moved == ["1.0"]
    assert [(each.changed, each.old_ended) for each in done] == [(True, True)] * 2
    expect_only(server, store / "1.0.mar")
    return len(versions)


def test_deploy_and_rollback_lose_no_request(server: Server, store: Path) -> None:
    assert exchange_twice(server, store, (PREDICT, EXPLAIN, SLOW)) > 10


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_nothing_is_lost_under_load(server: Server, store: Path) -> None:
    kinds = (PREDICT,) * 8 + (EXPLAIN,) * 4 + (SLOW,) * 2
    assert sum(exchange_twice(server, store, kinds) for _ in range(2)) > 200


@pytest.mark.parametrize(
    ("archive", "error", "text"),
    [
        ("3.0.mar", OtherAnswerError, r"demo 3\.0 explains its golden sample otherwise here"),
        ("4.0.mar", DeployError, r"4\.0 does not load: .*ValueError: the handler is broken"),
        ("one.mar", DeployConflictError, r"1\.0 is served with digest .* another --version"),
        ("none.mar", ArchiveError, "there is no archive at"),
    ],
)
def test_what_fails_leaves_the_old_one(
    archive: str, error: type[Exception], text: str, server: Server, store: Path
) -> None:
    with pytest.raises(error, match=text):
        deploy(server, store / archive, DeployOptions())
    expect_only(server, store / "1.0.mar")


def test_only_digests_of_the_configuration(
    server: Server, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.properties"
    config.write_text(f"archive_digests={verify(store / '1.0.mar').digest}\n")
    state = replace(server.state, config=str(config))
    monkeypatch.setattr(server, "state", state)
    state.write(server.folder)
    try:
        with pytest.raises(UnsafeArchiveError, match="expected, as configured"):
            deploy(server, store / "2.0.mar", DeployOptions())
        assert not deploy(server, store / "1.0.mar", DeployOptions()).changed
    finally:
        monkeypatch.undo()
        server.record(server.served)


def test_what_is_served_already(
    server: Server, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["deploy", str(store / "1.0.mar"), "--folder", str(server.folder)]
    assert main(command) == 0
    assert "demo 1.0 is served already, with digest" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["changed"], said["now"]["version"]) == (False, "1.0")
    expect_only(server, store / "1.0.mar")


def test_what_nobody_signed_is_not_deployed(server: Server, store: Path, tmp_path: Path) -> None:
    _, _, public = write_keys(tmp_path, "k")
    before = server.state
    replace(before, public_keys=(str(public),)).write(server.folder)
    try:
        with pytest.raises(MissingSignatureError, match=r"2\.0\.mar is not signed"):
            deploy(server, store / "2.0.mar", DeployOptions())
    finally:
        before.write(server.folder)
    expect_only(server, store / "1.0.mar")


def test_one_deploy_at_a_time(
    server: Server, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["deploy", str(store / "2.0.mar"), "--folder", str(server.folder)]
    with (server.folder / "deploy.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(command) == 6
    assert "another deploy is at work on the server in" in capsys.readouterr().err


def test_a_server_that_is_not_deployable(
    endpoint: Server, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", str(store / "2.0.mar"), "--folder", str(endpoint.folder)]) == 2
    assert "archives serve --deployable --archive FILE" in capsys.readouterr().err
    with pytest.raises(ManagementError, match="start it with --deployable"):
        endpoint.management.register("demo", "0.mar", 60)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/x.mar",
        "https://127.0.0.1:{port}/x.mar",
        "hTTp%3A%2F%2F127.0.0.1:{port}%2Fx.mar",
        "http%253A%252F%252F127.0.0.1:{port}%252Fx.mar",
        "http:/127.0.0.1:{port}/x.mar",
        "ftp://127.0.0.1:{port}/x.mar",
        "s3://127.0.0.1:{port}/x.mar",
        "file://{archive}",
        "FILE%3A%2F%2F{archive}",
        "file:{archive}",
        "{archive}",
        "../{outside}",
        "..%2F{outside}",
        "%2e%2e/{outside}",
        "%252e%252e%252f{outside}",
        "..%5C{outside}",
        "x/../../{outside}",
    ],
)
def test_no_address_can_be_registered(url: str, server: Server, store: Path) -> None:
    outside = server.folder / "outside.mar"
    outside.write_bytes((store / "2.0.mar").read_bytes())
    text = url.format(port=server.ports.metrics, archive=store / "2.0.mar", outside=outside.name)
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            f"{server.management_url}/models?model_name=demo&url={text}",
            headers={"Authorization": f"Bearer {server.management_token}"},
            timeout=60,
        )
    outside.unlink()
    assert (answer.status_code, answer.json()["type"]) == (404, "ModelNotFoundException")
    expect_only(server, store / "1.0.mar")


@pytest.mark.parametrize(
    ("step", "number", "serves"),
    [
        pytest.param("is verified", signal.SIGINT, "1.0"),
        pytest.param("is verified", signal.SIGKILL, "1.0", marks=pytest.mark.full),
        pytest.param("loaded", signal.SIGTERM, "1.0", marks=pytest.mark.full),
        pytest.param("golden sample", signal.SIGKILL, None, marks=pytest.mark.full),
        pytest.param("is the default", signal.SIGKILL, "2.0", marks=pytest.mark.full),
        pytest.param("has answered all", signal.SIGKILL, "2.0", marks=pytest.mark.full),
    ],
)
def test_interrupted(
    step: str, number: signal.Signals, serves: str | None, server: Server, store: Path
) -> None:
    command = [sys.executable, "-m", "archives", "deploy", str(store / "2.0.mar")]
    command += ["--folder", str(server.folder)]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert next((line for line in process.stdout if step in line), None)
        process.send_signal(number)
        process.communicate(timeout=100)
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
    assert process.returncode == codes[number]
    after = running(server.folder)
    assert after is not None
    assert after.waiting() == ()  # one of both serves
    [default] = server.management.versions("demo")
    assert default.version == serves or serves is None
    assert answered(server)
    if number != signal.SIGKILL:
        expect_only(server, store / "1.0.mar")
    # The next deploy puts all in order, whether it changes anything or not.
    deploy(server, store / f"{default.version}.mar", DeployOptions())
    expect_only(server, store / f"{default.version}.mar")


def test_kept_until_it_is_asked_back(server: Server, store: Path) -> None:
    first = server.served[0]
    done = deploy(server, store / "2.0.mar", DeployOptions(keep=True))
    assert (done.before, done.old_ended) == (first, False)
    assert [each.version for each in server.served] == ["2.0", "1.0"]
    assert set(answered(server)).isdisjoint(answered(server, "/1.0"))
    rotate(server)
    assert server.waiting() == ()
    # The old version is there still: no need to load it. And no time for what 2.0 may have to do.
    said: list[str] = []
    back = deploy(server, store / "1.0.mar", DeployOptions(drain_seconds=0), said.append)
    assert [each.name.split(" ", 2)[-1] for each in back.steps[1:3]] == [
        "sample comes out the same through the endpoint",
        "is the default",
    ]
    assert "2.0 is still asked after 0 s: it stays registered until the next deploy" in said[-1]
    assert (back.now, back.old_ended) == (first, False)
    assert answered(server, "/2.0")
    assert not deploy(server, store / "1.0.mar", DeployOptions()).changed
    expect_only(server, store / "1.0.mar")
    assert post_to(server, "predictions/demo/2.0", files={"picture": PNG}).status_code == 404


def test_alias_that_was_moved_meanwhile(server: Server, store: Path) -> None:
    def move() -> None:
        raise ConflictError("production stands for 3.0 by now")

    with pytest.raises(AliasNotMovedError, match=r"serves demo 1\.0, but .* stands for 3\.0"):
        roll_back(server, store / "1.0.mar", move, DeployOptions(), lambda text: None)


def test_another_name_is_added_and_all_is_stopped(
    served: Server, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last one: it stops the server."""
    before = served.served
    other = altered(store / "1.0.mar", tmp_path / "other.mar", name="other")
    done = deploy(served, other, DeployOptions())
    assert (done.before, done.old_ended) == (None, False)
    assert served.models == ("demo", "other")
    assert served.served[: len(before)] == before
    assert main(["ready", "--folder", str(served.folder)]) == 0
    assert "other 1.0: ready" in capsys.readouterr().out
    processes = served.processes()
    assert main(["stop", "--folder", str(served.folder)]) == 0
    assert capsys.readouterr().out == "stopped the server of demo, other\n"
    assert len(processes) == 3
    assert served.processes() == []
    assert not served.model_store.exists()

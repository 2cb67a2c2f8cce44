"""What a server says that is down, is no MLflow, or lies: each has its end, and no secret shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from archives.__main__ import main
from archives.errors import CommandError, StoreDownError, StoreRefusedError, UnsafeError, UsageError
from archives.registry.mlflow_client import PROXY, download, open_client, served_path
from tests.jobs.archive_stub import write_archive
from tests.swift import free_ports

URI = "http://mlflow:5000"
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """The address of a server of which every request gets this answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *values: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def says(status: int, body: bytes = b"", length: int | None = None) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)

    return answer


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "someone")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-secret")


ENDS = {
    "too busy": (says(503), 75, "503"),
    "a fault": (says(500, b'{"error_code": "INTERNAL_ERROR", "message": "x"}'), 75, "500"),
    "credentials": (says(401, b"You are not authenticated"), 2, "check MLFLOW_TRACKING_USERNAME"),
    "forbidden": (says(403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}'), 2, "DENIED"),
    "another server": (says(404, b"<html>"), 2, "is no MLflow server"),
}


@pytest.mark.parametrize("case", ENDS)
def test_ends(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer, code, text = ENDS[case]
    with answering(answer) as uri:
        check_end(uri, code, text, tmp_path, capsys)


def test_server_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_end(f"http://127.0.0.1:{free_ports(1)[0]}", 75, "refused", tmp_path, capsys)


def check_end(
    uri: str, code: int, text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = str(write_archive(folder / "stub.mar"))
    out = str(folder / "out")
    for command in (["mlflow-publish", archive], ["mlflow-pull", "stub@x", "--output", out]):
        assert main([*command, "--tracking-uri", uri]) == code
        error = capsys.readouterr().err
        assert text in error
        assert "a-secret" not in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    "uri", ["", "mlflow:5000", "file:///tmp/mlruns", "sqlite:///x.db", "http://", "http://[::1"]
)
def test_addresses_that_are_none(uri: str) -> None:
    with pytest.raises(UsageError, match="expected the address of an MLflow server"):
        open_client(uri)


def test_credentials_in_the_address_are_refused_and_not_shown() -> None:
    with pytest.raises(UsageError) as caught:
        open_client("http://me:a-secret@127.0.0.1:5000")
    assert "a-secret" not in str(caught.value)
    assert "MLFLOW_TRACKING_PASSWORD" in str(caught.value)


PLACES: dict[str, type[CommandError]] = {
    "mlflow-artifacts:/1/../../../etc": UnsafeError,
    "mlflow-artifacts:/1/./run": UnsafeError,
    "mlflow-artifacts:/1/%2e%2e/run": UnsafeError,
    "mlflow-artifacts:/1/run?x=1": UnsafeError,
    "mlflow-artifacts:/": UnsafeError,
    "mlflow-artifacts://elsewhere:5000/1/run": UnsafeError,
    "mlflow-artifacts://me@mlflow:5000/1/run": UnsafeError,
    "mlflow-artifacts://[/1": UnsafeError,
    "file:///etc": StoreRefusedError,
    "/etc": StoreRefusedError,
    "s3://bucket/1/run": StoreRefusedError,
    "http://169.254.169.254/1": StoreRefusedError,
}


@pytest.mark.parametrize("place", PLACES)
def test_places_that_a_server_may_not_name(place: str) -> None:
    with pytest.raises(PLACES[place]):
        served_path(URI, place)


@pytest.mark.parametrize("host", ["", "//mlflow:5000"])
def test_places_that_it_serves(host: str) -> None:
    served = served_path(URI, f"mlflow-artifacts:{host}/1/a-run/artifacts/stub")
    assert served == f"{PROXY}/1/a-run/artifacts/stub"


def test_a_download_is_bounded(tmp_path: Path) -> None:
    with answering(says(200, b"x" * 101)) as uri:
        with pytest.raises(UnsafeError, match="more than 100 bytes as big"):
            download(uri, f"{PROXY}/1/big", tmp_path / "big", 100)
        download(uri, f"{PROXY}/1/fits", tmp_path / "fits", 101)
    assert (tmp_path / "fits").read_bytes() == b"x" * 101


def test_a_download_that_breaks_off_is_worth_another_try(tmp_path: Path) -> None:
    with (
        answering(says(200, b"half", length=8)) as uri,
        pytest.raises(StoreDownError, match="half broke off"),
    ):
        download(uri, f"{PROXY}/1/half", tmp_path / "half", 100)

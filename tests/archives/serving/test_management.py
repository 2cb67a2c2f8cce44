from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from archives.serving.management import Management, ManagementError, RegisteredVersion
from archives.serving.server import Server

DESCRIBED = {
    "modelName": "demo",
    "modelVersion": "1.0",
    "modelUrl": "0.mar",
    "responseTimeout": 120,
    "maxBatchDelay": 50,
    "jobQueueStatus": {"remainingCapacity": 29, "pendingRequests": 3},
    "workers": [{"id": "9000", "status": "READY"}, {"id": "9001", "status": "UNLOADING"}],
}
WRONG_TOKEN = (400, {"type": "InvalidKeyException", "message": "Token Authorization failed."})


class Answers(BaseHTTPRequestHandler):
    """By a request's method and path; what is none of the token "right" is refused."""

    answers: dict[str, tuple[int, Any]] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        status, values = self.answers.get(f"{self.command} {self.path}", (404, "no JSON"))
        if self.headers["Authorization"] != "Bearer right":
            status, values = WRONG_TOKEN
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def asked(url: str, answers: dict[str, tuple[int, Any]]) -> Management:
    Answers.answers = answers
    return Management(url, lambda: "right")


def test_what_a_version_is(url: str) -> None:
    management = asked(url, {"GET /models/demo/1.0": (200, [DESCRIBED])})
    [found] = management.versions("demo", "1.0")
    assert found == RegisteredVersion(
        "demo", "1.0", "0.mar", ("9000", "9001"), ("9000",), 3, 120.0, 0.05
    )


def test_names_on_several_pages(url: str) -> None:
    first = {"models": [{"modelName": "a"}, {"modelName": "b"}], "nextPageToken": "2"}
    answers = {
        "GET /models?limit=100": (200, first),
        "GET /models?limit=100&next_page_token=2": (200, {"models": [{"modelName": "c"}]}),
    }
    assert asked(url, answers).names() == ("a", "b", "c")


@pytest.mark.parametrize("kind", ["ModelNotFoundException", "ModelVersionNotFoundException"])
def test_no_such_version(kind: str, url: str) -> None:
    answer = (404, {"code": 404, "type": kind, "message": "there is none"})
    assert asked(url, {"GET /models/demo/all": answer}).versions("demo", "all") == ()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((409, {"type": "Conflict", "message": "it is there"}), r"\(status 409\): it is there"),
        ((500, "no reason"), r"status 500\): .*, without a reason"),
        ((405, {}), "start it with --deployable"),
    ],
)
def test_what_was_refused(answer: tuple[int, Any], text: str, url: str) -> None:
    management = asked(url, {"PUT /models/a%2Fb/1.0/set-default": answer})
    with pytest.raises(ManagementError, match=text) as caught:
        management.set_default("a/b", "1.0")
    assert "right" not in str(caught.value)
    assert caught.value.status == answer[0]


@pytest.mark.parametrize(
    "described", [DESCRIBED | {"workers": None}, {"modelName": "demo"}, "demo"]
)
def test_what_is_not_understood(described: Any, url: str) -> None:
    management = asked(url, {"GET /models/demo": (200, [described])})
    with pytest.raises(ManagementError, match="described demo in a way"):
        management.versions("demo")


def test_nobody_there() -> None:
    with pytest.raises(ManagementError, match=r"did not answer GET /models\?limit=100") as caught:
        Management("http://127.0.0.1:9", lambda: "secret").names()
    assert "secret" not in str(caught.value)


def test_tokens_that_change_meanwhile(url: str) -> None:
    tokens = iter(["old", "right", "right"])
    asked(url, {"GET /models?limit=100": (200, {"models": []})})
    assert Management(url, lambda: next(tokens)).names() == ()
    with pytest.raises(ManagementError) as caught:
        Management(url, lambda: "wrong").names()
    assert caught.value.kind == "InvalidKeyException"


@pytest.mark.server
def test_the_real_one(endpoint: Server) -> None:
    management = endpoint.management
    assert management.names() == ("demo",)
    [found] = management.versions("demo")
    assert (found.version, found.file, found.pending) == ("1.0", "0.mar", 0)
    assert found.ready == found.workers
    assert (found.response_seconds, found.batch_seconds) == (120.0, 0.001)
    assert management.digest("demo", "1.0", 60) == endpoint.served[0].digest
    assert management.versions("demo", "9.9") == management.versions("none", "all") == ()

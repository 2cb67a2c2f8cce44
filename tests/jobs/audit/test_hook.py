"""Who is told when an audit fails."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from archives.errors import UsageError
from jobs.audit import hook
from jobs.audit.hook import check_hook, tell
from jobs.audit.plan import Hook


class Webhook(HTTPServer):
    """Answers with the next of `answers`; keeps what it was told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int] = []
        self.told: list[tuple[str, str | None, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/told"


class Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.answers.pop(0))
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    monkeypatch.setattr(hook, "PAUSE", 0.0)
    with Webhook() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([200], ""),
        ([503, 429, 204], ""),
        ([500, 500, 500], "the webhook answered 500"),
        ([403], "the webhook answered 403"),
        ([302], "the webhook answered 302"),  # a token is for one address alone
    ],
)
def test_a_webhook_is_told(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, answers: list[int], problem: str
) -> None:
    monkeypatch.setenv("TOLD_TOKEN", "hunter2\n")  # as a file of a secret ends
    webhook.answers = [*answers]
    asked = Hook(url=webhook.url, token_variable="TOLD_TOKEN")
    check_hook(asked)
    assert tell(asked, b'{"passed": false}') == problem
    assert webhook.told == [("/told", "Bearer hunter2", b'{"passed": false}')] * len(answers)


def test_a_webhook_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "PAUSE", 0.0)
    with Webhook() as server:
        url = server.url
    assert tell(Hook(url=url), b"") == "the webhook could not be reached: URLError"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"url": "http://example.org/"}, "expected https"),
        ({"url": "file:///etc/passwd"}, "expected https"),
        ({"url": "https:///no-host"}, "expected https"),
        ({"url": "https://[::1/x"}, "expected https"),
        ({"url": "https://me:hunter2@example.org/"}, "a password in it ends in logs"),
        ({"url": "https://example.org/", "token_variable": "NOT_SET"}, "NOT_SET is not set"),
    ],
)
def test_a_hook_that_cannot_be_told_safely_is_refused(fields: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        check_hook(Hook.model_validate(fields))
    assert "hunter2" not in str(caught.value)


def test_a_token_that_no_header_takes_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLD_TOKEN", "hunter2\nmore")
    with pytest.raises(UsageError, match="TOLD_TOKEN holds no token") as caught:
        check_hook(Hook(url="https://example.org/", token_variable="TOLD_TOKEN"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import sys; sys.exit(sys.stdin.read() != 'report')", ""),
        ("import sys; sys.exit('no\\n mail')", "the hook's command ended with 1: no mail"),
    ],
)
def test_a_command_is_told(code: str, problem: str) -> None:
    asked = Hook(command=(sys.executable, "-c", code))
    check_hook(asked)
    assert tell(asked, b"report") == problem


def test_a_command_that_is_not_there() -> None:
    assert "did not run: " in tell(Hook(command=("/not/there",)), b"")

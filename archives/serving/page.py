"""`python -m archives page`: the page of docs/page, at an address from which it may ask the server.

TorchServe wants its token of a browser's preflight, too, which never has one; so a page can ask it
only from the address that it came from. Here that address hands its requests on.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from archives.serving.server import expect_running
from archives.serving.server_config import HOST

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
ASKED = ("/predictions/", "/explanations/")
# Of a request, and of its answer; the token passes through and is kept nowhere.
SENT = ("Authorization", "Content-Type", "Accept", "Describe")
ANSWERED = ("Content-Type", "X-Whybox-Trimmed", "X-Whybox-Omitted-Heatmaps")
# The page's own policy is in it; a <meta> cannot say who may frame it.
SAFE = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# The server's own limit is on one batch, for which a request may wait behind others.
ANSWER_SECONDS = 600.0
# By which this machine calls itself: a page elsewhere may have a name that leads here.
NAMES = (HOST, "localhost")
# Bytes of a request: config.properties has the same.
LARGEST = 64 * 2**20


class PageServer(ThreadingHTTPServer):
    """The page on this machine's own address, and the way from there to a server.

    server_url: the server's inference address. port: 0 for one that is free. origins: pages that
    may ask from elsewhere; "null" is one opened from disk.
    """

    daemon_threads = True

    def __init__(self, server_url: str, port: int = 0, origins: Sequence[str] = ()) -> None:
        self.target, self.origins = urlsplit(server_url).netloc, tuple(origins)
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds for a request to come

    def parse_request(self) -> bool:
        """A request whose end is plain, asked of this address itself; others are refused, and their
        connection is closed, so that nothing of them is taken for a request."""
        if not super().parse_request():
            return False
        length = self.headers.get("Content-Length") or "0"
        refused = None
        if self.headers.get("Host", "").rpartition(":")[0] not in NAMES:
            refused = HTTPStatus.FORBIDDEN, f"this is {' and '.join(NAMES)} only"
        elif "Transfer-Encoding" in self.headers:
            refused = HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length"
        elif not length.isdecimal() or len(length) > 12 or int(length) > LARGEST:
            reason = f"expected at most {LARGEST} bytes"
            refused = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason
        elif not self.path.isascii():
            refused = HTTPStatus.BAD_REQUEST, "expected a path of ASCII"
        if refused:
            self.close_connection = True
            self._refuse(*refused)
            return False
        # Read whole first: a server that refuses a request does so before it has come.
        self.body = self.rfile.read(int(length))
        return len(self.body) == int(length)

    def do_GET(self) -> None:
        if self.path.startswith(ASKED):
            self._hand_on()
            return
        name = self.path.partition("?")[0].removeprefix("/") or "index.html"
        files = {file.name: file for file in FOLDER.iterdir() if file.suffix in TYPES}
        if name in files:
            kind = f"{TYPES[files[name].suffix]}; charset=utf-8"
            self._answer(HTTPStatus.OK, files[name].read_bytes(), {"Content-Type": kind})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {name} here")

    def do_POST(self) -> None:
        if self.path.startswith(ASKED):
            self._hand_on()
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"only {' and '.join(ASKED)} lead to the server")

    def do_OPTIONS(self) -> None:
        """A browser's preflight."""
        allowed = {
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": ", ".join(SENT),
        }
        known = self.headers.get("Origin") in self.server.origins
        self._answer(HTTPStatus.NO_CONTENT, b"", allowed if known else {})

    def _hand_on(self) -> None:
        headers = {name: self.headers[name] for name in SENT if name in self.headers}
        # TorchServe's own name for it; other names of headers it compares without case.
        if "Describe" in headers:
            headers["describe"] = headers.pop("Describe")
        connection = http.client.HTTPConnection(self.server.target, timeout=ANSWER_SECONDS)
        try:
            connection.request(self.command, self.path, self.body, headers)
            answer = connection.getresponse()
            given = {name: value for name in ANSWERED if (value := answer.getheader(name))}
            self._answer(answer.status, answer.read(), given)
        except (OSError, http.client.HTTPException) as error:
            self._refuse(
                HTTPStatus.BAD_GATEWAY, f"the server at {self.server.target} failed: {error}"
            )
        finally:
            connection.close()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """As TorchServe words its own errors."""
        reason = {"code": status.value, "type": status.phrase, "message": message}
        kind = {"Content-Type": "application/json"}
        self._answer(status, json.dumps(reason).encode(), kind)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        origin = self.headers.get("Origin")
        if origin in self.server.origins:
            headers = headers | {"Access-Control-Allow-Origin": str(origin), "Vary": "Origin"}
        self.send_response(status)
        for name, value in (SAFE | headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the server has a log of its own."""


def show(
    folder: Path, port: int, origins: Sequence[str], began: Callable[[str, Path], None]
) -> None:
    """Serves the page, for the server that runs in `folder`, until Ctrl-C.

    began: told the page's address, and the file with the server's token, once it can be asked.
    Raises ServerError where none runs, OSError for a port that is taken.
    """
    server = expect_running(folder)
    with PageServer(server.inference_url, port, origins) as page:
        began(page.url, server.header_file("inference"))
        page.serve_forever()

"""Clients that ask a server without a pause, and what became of each request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

import requests

from archives.serving.server import Server
from tests.test_endpoint import PNG

PREDICT: tuple[str, Mapping[str, str]] = ("predictions", {})
EXPLAIN = ("explanations", {"method": "gradcam", "format": "npz"})
SLOW = ("explanations", {"method": "drise", "masks": "24", "candidates": "1", "format": "npz"})
LOG_SECONDS = 30.0


class Asked(NamedTuple):
    """status: of the answer, or the error's name. begun, ended: by time.monotonic()."""

    status: int | str
    request_id: str
    begun: float
    ended: float
    slow: bool


@dataclass
class Stream:
    """While it is entered, a thread for each of `kinds` asks for `model`, naming no version."""

    server: Server
    model: str
    kinds: tuple[tuple[str, Mapping[str, str]], ...]
    asked: list[Asked] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._run, args=each) for each in self.kinds]
        for each in self._threads:
            each.start()
        self.wait_for_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        for each in self._threads:
            each.join()

    def wait_for_all(self) -> None:
        """Returns when as many requests that begin from now on are answered as there are clients,
        the slow ones' among them."""
        now = time.monotonic()
        slow = sum(each is SLOW for each in self.kinds)
        while True:
            since = [each for each in self.asked if each.begun > now]
            if len(since) >= len(self.kinds) and sum(each.slow for each in since) >= slow:
                return
            time.sleep(0.02)

    def _run(self, verb: str, fields: Mapping[str, str]) -> None:
        url = f"{self.server.inference_url}/{verb}/{self.model}"
        headers = {"Authorization": f"Bearer {self.server.inference_token}"}
        with requests.Session() as session:
            session.trust_env = False
            while not self._ended.is_set():
                begun = time.monotonic()
                status: int | str
                try:
                    answer = session.post(
                        url, headers=headers, files={"picture": PNG}, data=fields, timeout=100
                    )
                    status, number = answer.status_code, answer.headers["X-Request-Id"]
                except (requests.RequestException, KeyError) as error:
                    status, number = type(error).__name__, ""
                slow = fields is SLOW[1]
                self.asked.append(Asked(status, number, begun, time.monotonic(), slow))


def versions_by_request(server: Server, asked: list[Asked]) -> dict[str, str]:
    """Which version answered each request, by the server's request log; {} for none of them."""
    wanted = {each.request_id for each in asked}
    deadline = time.monotonic() + LOG_SECONDS
    found: dict[str, str] = {}
    while wanted - found.keys() and time.monotonic() < deadline:
        lines = server.request_log.read_text().splitlines()
        entries: list[dict[str, Any]] = [json.loads(line) for line in lines if '"verb"' in line]
        found = {
            each["request_id"]: each["version"]
            for each in entries
            if each["request_id"] in wanted and each["status"] == 200
        }
        time.sleep(0.1)
    return found

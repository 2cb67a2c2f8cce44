"""Mutated requests to the real server, from several clients at once, beside ones that are right."""

from __future__ import annotations

import base64
import itertools
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from archives.serving.server import Server
from tests.bad_input.requests import HEADERS, as_json, bodies, damaged, encoded, pictures
from tests.bad_input.test_handler import OPTIONS
from tests.test_endpoint import post_to

pytestmark = pytest.mark.server

# What TorchServe answers itself among them: 404 no such path, 405 method, 413 too large.
STATUSES = {200, 400, 403, 404, 405, 406, 413, 415, 422}
# TorchServe's word for a form that it cannot read, with a status that should be 400: Java says so
# before any worker of ours hears of the request.
DECODER = "ErrorDataDecoderException"
PATHS = st.sampled_from(
    ["explanations/demo", "predictions/demo", "v1/models/demo:explain", "v2/models/demo/infer",
     "explanations/demo/1.0", "explanations/demo/9", "predictions/%00", "explanations/../models"]
)  # fmt: skip
BOUNDARY = "part"
PATIENCE = 30  # seconds
TYPES = st.sampled_from(
    [
        "application/json",
        f"multipart/form-data; boundary={BOUNDARY}",
        "multipart/form-data",
        "text/plain",
        "image/png",
        "application/x-www-form-urlencoded",
        "",
    ]
)


def multipart(fields: dict[str, bytes]) -> bytes:
    """A body by hand, so that it can be damaged."""
    parts = [
        b'--part\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\n\r\n%s\r\n'
        % (name.encode("utf-8", "replace"), data)
        for name, data in fields.items()
    ]
    return b"".join(parts) + b"--part--\r\n"


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Bodies: pictures, JSON and multipart, whole and damaged."""
    way = draw(st.integers(0, 3))
    if way == 0:
        return draw(pictures())
    if way == 1:
        return as_json(draw(bodies()))
    if way == 2:
        return draw(damaged(as_json(draw(bodies()))))
    return draw(damaged(multipart({"picture": draw(pictures()), "method": b"odam"})))


def mutated(server: Server, path: str, kind: str, data: bytes, headers: dict[str, str]) -> None:
    """Posts what is wrong in some way, and looks at what comes."""
    headers = {**headers, **({"Content-Type": kind} if kind else {})}
    answer = post_to(server, path, headers, PATIENCE, data=data)
    own = answer.status_code == 500 and answer.json().get("type") == DECODER
    assert own or answer.status_code in STATUSES, (answer.status_code, answer.text[:300])


def marked(server: Server, number: int) -> None:
    """Posts a request that no other client makes; its answer is that request's."""
    threshold = 0.1 + number * 1e-6
    text = base64.b64encode(encoded("PNG")).decode()
    body = {"picture": text, "score_threshold": threshold, "max_detections": 1 + number % 3}
    answer = post_to(server, "explanations/demo", timeout=PATIENCE, json=body)
    assert answer.status_code == 200, answer.text[:300]
    found = answer.json()
    assert found["request"]["score_threshold"] == threshold
    assert len(found["explanations"]) <= 1 + number % 3
    assert (found["picture"]["width"], found["picture"]["height"]) == (64, 48)


def workers(server: Server) -> set[int]:
    return set(server.processes())


Request = tuple[str, str, bytes, dict[str, str]]


def attack(server: Server, several: list[Request], numbers: itertools.count[int]) -> None:
    """All at once, with one that is right among them."""
    with ThreadPoolExecutor(len(several) + 1) as pool:
        waiting = [pool.submit(mutated, server, *each) for each in several]
        waiting.append(pool.submit(marked, server, next(numbers)))
        for each in waiting:
            each.result()


SEVERAL = st.lists(st.tuples(PATHS, TYPES, contents(), HEADERS), min_size=3, max_size=3)


def attacker(server: Server, examples: int, **options: Any) -> Callable[[], None]:
    numbers = itertools.count()

    @settings(max_examples=examples, phases=[Phase.generate], **OPTIONS, **options)
    @given(several=SEVERAL)
    def run(several: list[Request]) -> None:
        attack(server, several, numbers)

    return run


def test_some_mutated_requests(endpoint: Server) -> None:
    before = workers(endpoint)
    attacker(endpoint, 20, derandomize=True)()
    assert workers(endpoint) == before


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_thousand_mutated_requests(endpoint: Server) -> None:
    before = workers(endpoint)
    attacker(endpoint, 340)()
    assert workers(endpoint) == before


RAW = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x00" * 500,
    b"POST /explanations/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\nx",
    b"POST /explanations/demo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\nx",
    b"POST /explanations/demo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /explanations/demo HTTP/1.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    b"POST /explanations/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nshort",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@pytest.mark.parametrize("data", RAW)
def test_what_is_hardly_http(endpoint: Server, data: bytes) -> None:
    before = workers(endpoint)
    with socket.create_connection(("127.0.0.1", endpoint.ports.inference), timeout=5) as client:
        client.settimeout(3)
        first = b""
        with suppress(TimeoutError, ConnectionError):  # it waits for more, or hangs up
            client.sendall(data)
            first = client.recv(4096)
    assert b" 200 " not in first.split(b"\r\n", 1)[0]
    marked(endpoint, 999)
    assert workers(endpoint) == before

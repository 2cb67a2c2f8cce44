"""A proxy before an S3 endpoint that delays requests and makes some of them fail.

    with FaultyProxy("http://127.0.0.1:9000", Faults(latency=0.05, fault_share=0.2)) as proxy:
        ...  # boto3 with proxy.url as its endpoint

A measurement runs it in a process of its own, which prints its URL and serves until its standard
input ends:

    python -m tests.faulty http://127.0.0.1:9000 --latency 0.05
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import struct
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

CHUNK = 2**18
BACKLOG = 512
# Kinds of faults. A lost answer: the store did what it was asked, but the client never hears of it.
SLOW_DOWN, THROTTLED, RESET, LOST_ANSWER = "slow-down", "throttled", "reset", "lost-answer"
TIME_OUT, SHORT_BODY, CONFLICT, PRECONDITION = "time-out", "short-body", "conflict", "precondition"
KINDS = (
    SLOW_DOWN,
    THROTTLED,
    RESET,
    LOST_ANSWER,
    TIME_OUT,
    SHORT_BODY,
    CONFLICT,
    PRECONDITION,
)
ANSWERS = {
    SLOW_DOWN: ("503 Service Unavailable", "SlowDown"),
    THROTTLED: ("429 Too Many Requests", "TooManyRequests"),
    CONFLICT: ("409 Conflict", "ConditionalRequestConflict"),
    PRECONDITION: ("412 Precondition Failed", "PreconditionFailed"),
}


@dataclass(frozen=True)
class Faults:
    """What a FaultyProxy does to requests.

    latency: seconds added to every request, to each for itself.
    fault_share: of requests that fail, 0 to 1, by one of the `kinds` that fit the request: short
        bodies are for GET, 409 and 412 for conditional writes.
    hold_seconds: how long a request that times out is held before its connection is reset.
    seed: of the choice of faults, in the order in which requests arrive.
    """

    latency: float = 0.0
    fault_share: float = 0.0
    kinds: tuple[str, ...] = KINDS
    hold_seconds: float = 2.0
    seed: int = 0


class Head(NamedTuple):
    """The head of a request or an answer: its bytes, its first line's words, its headers."""

    raw: bytes
    words: list[str]
    headers: dict[str, str]

    @property
    def length(self) -> int | None:
        """The body's bytes; -1 if it comes in chunks, None if nothing says."""
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return -1
        length = self.headers.get("content-length")
        return None if length is None else int(length)

    @property
    def closes(self) -> bool:
        said = self.headers.get("connection", "").lower()
        return "close" in said or ("HTTP/1.0" in self.words and "keep-alive" not in said)


class CutError(Exception):
    """The connection is to be reset."""


@dataclass(eq=False)
class Line:
    """A client's connection, and its own connection to the store once it has asked something."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    store_reader: asyncio.StreamReader | None = None
    store_writer: asyncio.StreamWriter | None = None

    def close(self, reset: bool = False) -> None:
        if self.store_writer is not None:
            self.store_writer.transport.abort()
        if reset:
            peer = self.writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # it may be gone by itself
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        self.writer.close()


class FaultyProxy:
    """Passes HTTP/1.1 on to `endpoint`, from a thread of its own, unchanged but for `faults`.

    url: to be given to clients.
    down: whether every connection is reset; may be set at any time.
    requests, faults: how many came so far, and how many of them failed, by kind ("store": it was
    the store itself that broke the connection).
    """

    def __init__(self, endpoint: str, faults: Faults | None = None) -> None:
        target = urlsplit(endpoint)
        if target.hostname is None or target.port is None:
            raise ValueError(f"expected http://HOST:PORT, got {endpoint!r}")
        self.options = faults or Faults()
        self.requests = 0
        self.faults: Counter[str] = Counter()
        self._target = (target.hostname, target.port)
        self._random = random.Random(self.options.seed)
        self._down = False
        self._lines: set[Line] = set()
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, name="faulty-proxy", daemon=True)

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._loop.close()

    @property
    def down(self) -> bool:
        return self._down

    @down.setter
    def down(self, value: bool) -> None:
        self._down = value
        if value:
            self._loop.call_soon_threadsafe(self._reset_all)

    def _reset_all(self) -> None:
        for line in self._lines:
            line.close(reset=True)

    def _run(self) -> None:
        self._loop.run_until_complete(self._main())

    async def _main(self) -> None:
        server = await asyncio.start_server(
            self._serve, sock=self._socket, limit=CHUNK, backlog=BACKLOG
        )
        await self._stopped.wait()
        server.close()
        self._reset_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        self._lines.add(line)
        try:
            while not self._down and await self._exchange(line):
                pass
            line.close(reset=self._down)
        except (CutError, OSError, asyncio.IncompleteReadError):
            line.close(reset=True)
        except asyncio.CancelledError:
            line.close(reset=True)  # the proxy stops; nobody waits for this task
        finally:
            self._lines.discard(line)

    async def _exchange(self, line: Line) -> bool:
        """One request and its answer; whether the connection lives on."""
        request = await read_head(line.reader)
        if request is None:
            return False
        self.requests += 1
        if self.options.latency:
            await asyncio.sleep(self.options.latency)
        if self._down:
            raise CutError
        kind = self._fault(request)
        if kind in ANSWERS:
            return await refuse(line, request, *ANSWERS[kind])
        if kind == TIME_OUT:
            await asyncio.sleep(self.options.hold_seconds)
        if kind in (TIME_OUT, RESET):
            raise CutError
        return await self._forward(line, request, kind)

    def _fault(self, request: Head) -> str:
        """The fault that this request gets, "" for none."""
        if self._random.random() >= self.options.fault_share:
            return ""
        method = request.words[0]
        conditional = method == "PUT" and request.headers.keys() & {"if-none-match", "if-match"}
        kinds = [
            kind
            for kind in self.options.kinds
            if (kind != SHORT_BODY or method == "GET")
            and (kind not in (CONFLICT, PRECONDITION) or conditional)
        ]
        if not kinds:
            return ""
        kind = self._random.choice(kinds)
        self.faults[kind] += 1
        return kind

    async def _forward(self, line: Line, request: Head, kind: str) -> bool:
        if line.store_reader is None or line.store_writer is None or line.store_reader.at_eof():
            line.store_reader, line.store_writer = await asyncio.open_connection(
                *self._target, limit=CHUNK
            )
        store = line.store_reader
        line.store_writer.write(request.raw)
        sending = asyncio.create_task(send_body(line.reader, line.store_writer, request))
        try:
            answer = await read_head(store)
            while answer is not None and answer.words[1] == "100":
                line.writer.write(answer.raw)
                answer = await read_head(store)
            if answer is None:
                self.faults["store"] += 1
            if answer is None or kind == LOST_ANSWER:
                raise CutError
            # Whoever is refused before it sent its body may never send it.
            unfinished = not sending.done()
            raw = answer.raw
            if unfinished:
                raw = raw.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            line.writer.write(raw)
            if request.words[0] == "HEAD" or answer.words[1] in ("204", "304"):
                length: int | None = 0
            else:
                length = answer.length
            if kind == SHORT_BODY:
                if not length or length < 0:
                    raise CutError
                await relay(store, line.writer, length // 2)
                return False
            await relay(store, line.writer, length)
            return not (unfinished or length is None or request.closes or answer.closes)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head; None if the connection ends before one."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    headers = {}
    for each in lines:
        name, _, value = each.partition(":")
        headers[name.lower()] = value.strip()
    return Head(raw, first.split(" "), headers)


async def send_body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Head
) -> None:
    try:
        await relay(reader, writer, request.length or 0)
    except (OSError, asyncio.IncompleteReadError):
        writer.transport.abort()  # so that nobody waits for an answer to half a request


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, length: int | None
) -> None:
    """Passes a body on (to nobody: `writer` None): so many bytes, -1 chunks, None all there is."""
    if length == -1:
        await relay_chunks(reader, writer)
        return
    while length is None or length > 0:
        data = await reader.read(CHUNK if length is None else min(length, CHUNK))
        if not data:
            if length is None:
                return
            raise asyncio.IncompleteReadError(b"", length)
        length = None if length is None else length - len(data)
        if writer is not None:
            writer.write(data)
            await writer.drain()


async def relay_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> None:
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if writer is not None:
            writer.write(line)
        if size:
            await relay(reader, writer, size + 2)
            continue
        while line != b"\r\n":  # trailers, which end with an empty line
            line = await reader.readuntil(b"\r\n")
            if writer is not None:
                writer.write(line)
        return


async def refuse(line: Line, request: Head, status: str, code: str) -> bool:
    """Answers in the store's place; whether the connection lives on."""
    closes = request.closes or "expect" in request.headers
    if not closes:
        await relay(line.reader, None, request.length or 0)
    body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    line.writer.write((head + "Connection: close\r\n" * closes + "\r\n").encode())
    if request.words[0] != "HEAD":
        line.writer.write(body)
    await line.writer.drain()
    return not closes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("endpoint")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--fault-share", type=float, default=0.0)
    options = parser.parse_args()
    faults = Faults(latency=options.latency, fault_share=options.fault_share)
    with FaultyProxy(options.endpoint, faults) as proxy:
        print(proxy.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

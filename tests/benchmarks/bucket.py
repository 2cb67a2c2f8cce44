"""An S3 server and a slow line to it, each a process of its own: what they compute is not taken
from the interpreter of the process that is measured."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import psutil
from moto.server import ThreadedMotoServer

NAME = "bench"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "made",
    "AWS_SECRET_ACCESS_KEY": "up",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True)
class SlowBucket:
    """A bucket behind a slow line.

    uri: s3://NAME. environment: by it boto3 finds the slow line. client: boto3's, past that line.
    processes: of the server and the line.
    """

    uri: str
    environment: Mapping[str, str]
    client: Any
    processes: tuple[psutil.Process, ...]

    def cpu_seconds(self) -> float:
        """What the server and the line have computed so far."""
        times = [process.cpu_times() for process in self.processes]
        return float(sum(each.user + each.system for each in times))


@contextmanager
def slow_bucket(latency: float) -> Iterator[SlowBucket]:
    """A new, empty bucket in memory, with so many seconds added to every request."""
    with (
        _started("tests.benchmarks.bucket") as (server, direct),
        _started("tests.faulty", direct, "--latency", str(latency)) as (line, slow),
    ):
        client = boto3.client(
            "s3",
            endpoint_url=direct,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
        )
        client.create_bucket(Bucket=NAME)
        processes = (psutil.Process(server.pid), psutil.Process(line.pid))
        yield SlowBucket(
            f"s3://{NAME}", {**CREDENTIALS, "AWS_ENDPOINT_URL": slow}, client, processes
        )


@contextmanager
def _started(module: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that prints its URL and serves until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.stdin.close()


def main() -> None:
    """Serves S3 on 127.0.0.1, from memory."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        print(f"http://{host}:{port}", flush=True)
        sys.stdin.read()
    finally:
        server.stop()


if __name__ == "__main__":
    main()

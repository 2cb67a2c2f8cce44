"""OpenStack Swift's S3 API on loopback: a second implementation, with real signatures.

A test module that wants it says `pytest_plugins = ("tests.swift",)`.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

REGION = "us-east-1"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
KINDS = ("account", "container", "object")
DEFAULTS = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
log_name = {kind}
log_address = {folder}/no-log-device
log_level = WARNING
"""
STORAGE = """[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
# Only what the S3 API needs. FILTERS has the options of those that want any.
PIPELINE = (
    "catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo dlo"
    " versioned_writes symlink proxy-logging proxy-server"
)
FILTERS = {
    "cache": "use = egg:swift#memcache\nmemcache_servers = 127.0.0.1:1",  # there is none
    "s3api": f"use = egg:swift#s3api\nlocation = {REGION}\ns3_acl = false",
    "tempauth": "use = egg:swift#tempauth\n{users}",
    "versioned_writes": "use = egg:swift#versioned_writes\nallow_versioned_writes = true",
    "proxy-logging": "use = egg:swift#proxy_logging",
}
SWIFT = """[swift-hash]
swift_hash_path_prefix = whybox
swift_hash_path_suffix = tests
[storage-policy:0]
name = gold
default = yes
"""


@dataclass(frozen=True)
class User:
    """An access key, its secret, and what it may do, as tempauth names it."""

    access_key: str
    secret: str
    group: str


OWNER = User("test:tester", "testing", ".admin")
READER = User("test:reader", "looking", ".reseller_reader")


@dataclass(frozen=True)
class Swift:
    """A running server.

    endpoint: the URL of its S3 API.
    owner, reader: who may do everything, and who may only list and read.
    processes: the numbers of its processes.
    """

    endpoint: str
    processes: tuple[int, ...]
    owner: User = OWNER
    reader: User = READER

    def environment(self, user: User | None = None) -> dict[str, str]:
        """What boto3 needs to find it; `user`: the owner by default."""
        user = user or self.owner
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": user.access_key,
            "AWS_SECRET_ACCESS_KEY": user.secret,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self) -> Any:
        """boto3's client of the owner."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.owner.access_key,
            aws_secret_access_key=self.owner.secret,
            region_name=REGION,
        )


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """One server for all tests; whoever uses it makes a bucket of its own."""
    with running_swift(tmp_path_factory.mktemp("swift")) as server:
        yield server


@contextlib.contextmanager
def running_swift(folder: Path) -> Iterator[Swift]:
    """A server that keeps everything in `folder`, which has to allow extended attributes.

    Raises RuntimeError with its log if it does not come up.
    """
    proxy, *others = free_ports(1 + len(KINDS))
    ports = dict(zip(KINDS, others, strict=True))
    configure(folder, proxy, ports)
    started: list[subprocess.Popen[bytes]] = []
    try:
        every = {**ports, "proxy": proxy}
        for kind in every:
            started.append(start(folder, kind))
        for (kind, port), process in zip(every.items(), started, strict=True):
            wait_for(folder, kind, port, process)
        yield Swift(f"http://127.0.0.1:{proxy}", tuple(each.pid for each in started))
    finally:
        for process in started:
            process.terminate()
        for process in started:
            end(process)


def configure(folder: Path, proxy: int, ports: dict[str, int]) -> None:
    (folder / "devices" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(SWIFT)
    for kind, port in ports.items():
        text = defaults(folder, kind, port) + STORAGE.format(kind=kind)
        (folder / f"{kind}-server.conf").write_text(text)
    users = "\n".join(
        f"user_{user.access_key.replace(':', '_')} = {user.secret} {user.group}"
        for user in (OWNER, READER)
    )
    parts = [
        defaults(folder, "proxy", proxy),
        f"[pipeline:main]\npipeline = {PIPELINE}",
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true",
    ]
    for name in PIPELINE.split()[:-1]:
        options = FILTERS.get(name, f"use = egg:swift#{name}").format(users=users)
        parts.append(f"[filter:{name}]\n{options}")
    (folder / "proxy-server.conf").write_text("\n".join(parts))
    # In a process of its own: swift belongs to the tests' tools, not to their imports.
    code = "\n".join(
        [
            "from swift.common.ring import RingBuilder",
            "def ring(kind, port):",
            "    builder = RingBuilder(4, 1, 1)",
            "    address = dict(ip='127.0.0.1', replication_ip='127.0.0.1',"
            " port=port, replication_port=port)",
            "    builder.add_dev(dict(address, region=1, zone=1, device='d1', weight=1, meta=''))",
            "    builder.rebalance()",
            f"    builder.get_ring().save({str(folder)!r} + f'/{{kind}}.ring.gz')",
            f"for kind, port in {ports!r}.items():",
            "    ring(kind, port)",
        ]
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=START_SECONDS)


def defaults(folder: Path, kind: str, port: int) -> str:
    return DEFAULTS.format(port=port, user=getpass.getuser(), folder=folder, kind=kind)


def start(folder: Path, kind: str) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name(f"swift-{kind}-server")
    with (folder / f"{kind}.log").open("wb") as log:
        return subprocess.Popen(
            [program, folder / f"{kind}-server.conf"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def wait_for(folder: Path, kind: str, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    log = (folder / f"{kind}.log").read_text(errors="replace")
    raise RuntimeError(f"swift-{kind}-server did not come up on port {port}:\n{log[-2000:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture
def swift_bucket(aws: pytest.MonkeyPatch, swift: Swift) -> str:
    """The URI of a new, empty bucket on Swift; boto3's environment is its owner's."""
    for name, value in swift.environment().items():
        aws.setenv(name, value)
    name = f"test-{uuid.uuid4().hex[:12]}"
    swift.client().create_bucket(Bucket=name)
    return f"s3://{name}"

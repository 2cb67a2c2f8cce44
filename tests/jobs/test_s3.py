"""What goes wrong with S3, against a real server or a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests

from jobs import s3
from jobs.errors import DeniedObjectError, JobError, StoreDownError, StoreRefusedError
from jobs.store import open_store


@pytest.fixture
def strict(bucket: str, s3_endpoint: str) -> Iterator[str]:
    """The bucket of a server that checks who asks, from here on: nobody is known to it."""
    reset = f"{s3_endpoint}/moto-api/reset-auth"
    requests.post(reset, data="0", timeout=10).raise_for_status()
    yield bucket
    requests.post(reset, data="inf", timeout=10).raise_for_status()


def attempt(verb: str, uri: str) -> None:
    store = open_store(uri)
    actions: dict[str, Any] = {
        "list": lambda: list(store.entries()),
        "find": lambda: store.find("a.jpg"),
        "read": lambda: store.read("a.jpg"),
        "write": lambda: store.write("a.jpg", b""),
    }
    actions[verb]()


VERBS = ["list", "find", "read", "write"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_bucket_that_is_not_there(bucket: str, verb: str) -> None:
    with pytest.raises(StoreRefusedError, match=r"there is no bucket 'no-such-bucket'") as caught:
        attempt(verb, "s3://no-such-bucket/p")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_wrong_credentials(strict: str, verb: str) -> None:
    with pytest.raises(StoreRefusedError, match="the credentials are wrong") as caught:
        attempt(verb, strict)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_no_credentials(bucket: str, aws: pytest.MonkeyPatch, verb: str) -> None:
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreRefusedError, match="no usable credentials"):
        attempt(verb, bucket)


def test_an_unknown_profile(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreRefusedError, match="nobody"):
        open_store("s3://bucket")


def test_a_bucket_name_that_cannot_be(bucket: str) -> None:
    with pytest.raises(JobError, match=r"'no bucket' cannot be a bucket's name; [^\^]*$") as caught:
        attempt("list", "s3://no bucket/p")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_a_server_that_is_down(aws: pytest.MonkeyPatch, verb: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(StoreDownError, match="does not answer") as caught:
        attempt(verb, "s3://bucket/p")
    assert caught.value.exit_code == 75


@pytest.mark.parametrize(
    ("status", "verb", "kind"),
    [
        ("503 Slow Down", "read", StoreDownError),
        ("500 Internal Server Error", "write", StoreDownError),
        ("403 Forbidden", "read", DeniedObjectError),
        ("403 Forbidden", "write", StoreRefusedError),
        ("403 Forbidden", "list", StoreRefusedError),
        ("418 Teapot", "write", StoreRefusedError),
    ],
)
def test_answers_by_status(
    aws: pytest.MonkeyPatch, status: str, verb: str, kind: type[JobError]
) -> None:
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    with answering(aws, [answer]), pytest.raises(kind):
        attempt(verb, "s3://bucket/p")


def test_a_body_that_breaks_off_is_fetched_again(aws: pytest.MonkeyPatch) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    with answering(aws, [head + b"abc", head + b"abcde"]):
        assert open_store("s3://bucket").read("k") == b"abcde"


def test_a_body_that_always_breaks_off(aws: pytest.MonkeyPatch) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    with answering(aws, [head + b"abc"] * s3.BODY_ATTEMPTS), pytest.raises(StoreDownError):
        open_store("s3://bucket").read("k")


def test_the_client_is_set_up_for_many_threads(aws: pytest.MonkeyPatch) -> None:
    aws.delenv("AWS_MAX_ATTEMPTS")
    config: Any = s3.connect(16).meta.config
    assert config.max_pool_connections == 16
    assert config.retries == {"mode": "standard", "total_max_attempts": s3.ATTEMPTS + 1}
    aws.setenv("AWS_MAX_ATTEMPTS", "2")
    config = s3.connect(16).meta.config
    assert config.retries["total_max_attempts"] == 2


def test_the_bucket_of_another_process_is_seen(bucket: str) -> None:
    boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key="p/a.jpg", Body=b"1")
    assert [each.key for each in open_store(bucket + "/p").entries()] == ["a.jpg"]


class answering:  # noqa: N801 - reads as a verb where it is used
    """A server on loopback that gives one connection after the other its fixed answer."""

    def __init__(self, aws: pytest.MonkeyPatch, answers: list[bytes]) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._serve, args=(answers,))
        aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self.server.getsockname()[1]}")

    def _serve(self, answers: list[bytes]) -> None:
        for answer in answers:
            connection, _ = self.server.accept()
            with connection:
                received = connection.recv(65536)
                while b"\r\n\r\n" not in received:
                    received += connection.recv(65536)
                connection.sendall(answer)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.thread.join(timeout=10)
        self.server.close()

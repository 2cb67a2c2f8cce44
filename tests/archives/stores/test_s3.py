"""What goes wrong with S3, against a real server or a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests

from archives.errors import (
    CommandError,
    DeniedObjectError,
    StoreDownError,
    StoreRefusedError,
    UsageError,
)
from archives.stores import s3
from archives.stores.opening import open_store
from archives.stores.store import S3Settings


@pytest.fixture
def strict(bucket: str, s3_endpoint: str) -> Iterator[str]:
    """The bucket of a server that checks who asks, from here on: nobody is known to it."""
    reset = f"{s3_endpoint}/moto-api/reset-auth"
    requests.post(reset, data="0", timeout=10).raise_for_status()
    yield bucket
    requests.post(reset, data="inf", timeout=10).raise_for_status()


def head(status: str, length: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def error(status: str, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>said</Message></Error>"
    return head(status, len(body)) + body.encode()


BODY = head("200 OK", 5) + b"abcde"
TAKEN = error("412 Precondition Failed", "PreconditionFailed")
MISSING = error("404 Not Found", "NoSuchKey")
UNKNOWN = error("501 Not Implemented", "NotImplemented")


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
    with pytest.raises(
        CommandError, match=r"'no bucket' cannot be a bucket's name; [^\^]*$"
    ) as caught:
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
    aws: pytest.MonkeyPatch, status: str, verb: str, kind: type[CommandError]
) -> None:
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    with answering(aws, [answer]), pytest.raises(kind):
        attempt(verb, "s3://bucket/p")


@pytest.mark.parametrize(
    "first",
    [
        BODY[:-2],
        head("503 Service Unavailable", 0),
        head("429 Too Many Requests", 0),
        error("503 Slow Down", "SlowDown"),
        error("400 Bad Request", "RequestTimeout"),
        error("409 Conflict", "OperationAborted"),
        head("200 OK", 5, "x-amz-checksum-crc32: AAAAAA==") + b"abcde",
        b"",
        b"no HTTP at all",
    ],
)
def test_what_passes_is_asked_again(aws: pytest.MonkeyPatch, first: bytes) -> None:
    aws.setenv("AWS_MAX_ATTEMPTS", "2")
    with answering(aws, [first, BODY]):
        assert open_store("s3://bucket").read("k") == b"abcde"


@pytest.mark.parametrize("first", [BODY[:-2], head("429 Too Many Requests", 0), b""])
def test_what_does_not_pass_is_a_store_that_is_down(aws: pytest.MonkeyPatch, first: bytes) -> None:
    aws.setenv("AWS_MAX_ATTEMPTS", "2")
    with answering(aws, [first] * 2), pytest.raises(StoreDownError):
        open_store("s3://bucket").read("k")


LISTING = (
    b"<ListBucketResult><IsTruncated>false</IsTruncated>"
    b"<Contents><Key>a</Key><Size>3</Size><ETag>x</ETag></Contents></ListBucketResult>"
)


@pytest.mark.parametrize("first", [LISTING[:-40], b"", b"<html></html>", b"garbage"])
def test_half_a_listing_is_asked_again(aws: pytest.MonkeyPatch, first: bytes) -> None:
    aws.setenv("AWS_MAX_ATTEMPTS", "2")
    answers = [head("200 OK", len(body)) + body for body in (first, LISTING)]
    with answering(aws, answers):
        assert [tuple(each) for each in open_store("s3://bucket").entries()] == [("a", 3, "x")]
    with answering(aws, [answers[0]] * 2), pytest.raises(StoreDownError):
        list(open_store("s3://bucket").entries())


@pytest.mark.parametrize(
    ("answers", "created"),
    [
        ([error("409 Conflict", "ConditionalRequestConflict"), head("200 OK", 0)], True),
        ([TAKEN, BODY], True),
        ([TAKEN, head("200 OK", 1) + b"x"], False),
        ([TAKEN, MISSING, head("200 OK", 0)], True),
        ([UNKNOWN, MISSING, head("200 OK", 0)], True),
        ([UNKNOWN, head("200 OK", 1) + b"x"], False),
    ],
)
def test_creating(aws: pytest.MonkeyPatch, answers: list[bytes], created: bool) -> None:
    aws.setenv("AWS_MAX_ATTEMPTS", "2")
    with answering(aws, answers):
        assert open_store("s3://bucket").create("k", b"abcde") is created


def test_a_store_that_contradicts_itself(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_MAX_ATTEMPTS", "2")
    with (
        answering(aws, [TAKEN, MISSING] * 2),
        pytest.raises(StoreDownError, match=r"it is there \(412\), and that it is not \(404\)"),
    ):
        open_store("s3://bucket").create("k", b"abcde")


def test_a_store_that_never_answers(aws: pytest.MonkeyPatch) -> None:
    settings = S3Settings(read_seconds=0.05, attempts=2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreDownError, match="Read timeout"):
            open_store("s3://bucket", settings).read("k")


def test_a_client_is_set_up_as_its_settings_say() -> None:
    config: Any = s3.connect(S3Settings(7, 1.5, 2.5, 3)).meta.config
    assert (config.max_pool_connections, config.connect_timeout, config.read_timeout) == (
        7,
        1.5,
        2.5,
    )


def test_settings_from_the_environment(aws: pytest.MonkeyPatch) -> None:
    aws.delenv("AWS_MAX_ATTEMPTS")
    assert S3Settings.from_environment() == S3Settings(16, 10.0, 60.0, 10)
    for name, value in [("CONNECTIONS", "40"), ("CONNECT_SECONDS", "2"), ("READ_SECONDS", "0.5")]:
        aws.setenv(f"WHYBOX_S3_{name}", value)
    aws.setenv("AWS_MAX_ATTEMPTS", "4")
    assert S3Settings.from_environment() == S3Settings(40, 2.0, 0.5, 4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WHYBOX_S3_CONNECTIONS", "2.5"),
        ("WHYBOX_S3_CONNECTIONS", "0"),
        ("WHYBOX_S3_CONNECT_SECONDS", "-1"),
        ("WHYBOX_S3_READ_SECONDS", "inf"),
        ("WHYBOX_S3_READ_SECONDS", "nan"),
        ("AWS_MAX_ATTEMPTS", "many"),
    ],
)
def test_settings_that_cannot_be(aws: pytest.MonkeyPatch, name: str, value: str) -> None:
    aws.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name}: expected a positive .*, got '{value}'"):
        open_store("s3://bucket")


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

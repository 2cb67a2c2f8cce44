from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import boto3
import pytest

from handlers.endpoint import object_reference
from handlers.endpoint.object_reference import (
    ForbiddenBucketError,
    MissingObjectError,
    StoreError,
    read_object,
)
from handlers.fields import RequestError


@pytest.fixture(autouse=True)
def new_client() -> Iterator[None]:
    object_reference._client.cache_clear()
    yield
    object_reference._client.cache_clear()


def name(bucket: str) -> str:
    return bucket.removeprefix("s3://")


def test_an_object_of_an_allowed_bucket(bucket: str) -> None:
    boto3.client("s3").put_object(Bucket=name(bucket), Key="a b/ü/c.jpg", Body=b"pixels")
    assert read_object(f"{bucket}/a b/ü/c.jpg", [name(bucket)]) == b"pixels"


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("http://169.254.169.254/latest/meta-data", RequestError, "s3://BUCKET/KEY, and no other"),
        ("file:///etc/passwd", RequestError, "s3://BUCKET/KEY"),
        ("S3://open/a", RequestError, "s3://BUCKET/KEY"),
        ("s3://open", RequestError, "s3://BUCKET/KEY"),
        ("s3:///a", RequestError, "s3://BUCKET/KEY"),
        ("s3://other/a", ForbiddenBucketError, "objects of these buckets: open"),
        ("s3://open@other/a", ForbiddenBucketError, "open"),
        ("s3://OPEN/a", ForbiddenBucketError, "open"),
        ("s3://open/" + "k" * 1025, RequestError, "a key of at most 1024 bytes"),
    ],
)
def test_nothing_else_is_asked_for(
    reference: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_reference, "_client", lambda: pytest.fail("the store was asked"))
    with pytest.raises(error, match=message):
        read_object(reference, ["open"])


def test_what_is_not_there_or_too_large(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingObjectError, match="an object that is there"):
        read_object(f"{bucket}/none.jpg", [name(bucket)])
    monkeypatch.setattr(object_reference, "LARGEST", 5)
    boto3.client("s3").put_object(Bucket=name(bucket), Key="large", Body=b"pixels")
    with pytest.raises(RequestError, match="at most 5 bytes"):
        read_object(f"{bucket}/large", [name(bucket)])


class Redirecting(http.server.BaseHTTPRequestHandler):
    """Sends whoever asks elsewhere, and remembers who came."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(307)
        self.send_header("Location", f"http://{self.headers['Host']}/secret")
        self.send_header("x-amz-bucket-region", "127.0.0.1/x")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is printed."""


def test_redirects_are_not_followed(aws: pytest.MonkeyPatch) -> None:
    Redirecting.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(StoreError, match="did not give s3://open/a; try again") as error:
            read_object("s3://open/a", ["open"])
        server.shutdown()
    assert "127.0.0.1" not in str(error.value)
    assert Redirecting.asked
    assert not [path for path in Redirecting.asked if "secret" in path]


def test_a_store_that_is_down(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="try again later"):
        read_object("s3://open/a", ["open"])

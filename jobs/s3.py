"""S3 and what speaks its protocol, through boto3; endpoint and credentials as boto3 finds them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import boto3
from botocore import exceptions as boto
from botocore.config import Config

from jobs.errors import (
    DeniedObjectError,
    JobError,
    MissingObjectError,
    StoreDownError,
    StoreRefusedError,
    UsageError,
)
from jobs.names import shortened
from jobs.store import S3_SCHEME, Entry

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

ATTEMPTS = 5
BODY_ATTEMPTS = 3
CONNECT_SECONDS = 10
READ_SECONDS = 60

BROKEN_BODY = (
    boto.IncompleteReadError,
    boto.ReadTimeoutError,
    boto.ResponseStreamingError,
    boto.ConnectionClosedError,
)
UNREACHABLE = (*BROKEN_BODY, boto.ConnectionError, boto.HTTPClientError)
NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
)
BAD_CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
BAD_BUCKET = {"NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "AllAccessDisabled"}
BUSY = {"RequestTimeout", "SlowDown", "Throttling", "OperationAborted"}


def connect(connections: int) -> S3Client:
    """A client for up to `connections` threads; raises StoreRefusedError if the set-up is wrong."""
    retries: dict[str, Any] = {"mode": os.environ.get("AWS_RETRY_MODE", "standard")}
    if "AWS_MAX_ATTEMPTS" not in os.environ:  # a Config would overrule what the user has set
        retries["max_attempts"] = ATTEMPTS
    config = Config(
        retries=retries,  # type: ignore[arg-type]  # a TypedDict, filled in two steps
        max_pool_connections=connections,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except (boto.BotoCoreError, ValueError) as error:
        raise StoreRefusedError(f"S3 cannot be used as set up: {error}") from error


class S3Store:
    """A bucket's keys below a prefix ("" or ending with a slash)."""

    def __init__(self, client: S3Client, bucket: str, prefix: str = "") -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"{S3_SCHEME}{bucket}/{prefix}".rstrip("/")

    def below(self, prefix: str) -> S3Store:
        return S3Store(self.client, self.bucket, self.prefix + prefix)

    def find(self, key: str) -> Entry | None:
        name = self.prefix + key
        if not key or key.endswith("/"):
            return None
        with _translated(self.bucket, name, refuses=True):
            # The first key with a prefix is the prefix itself; HEAD would hide errors' reasons.
            answer = self.client.list_objects_v2(Bucket=self.bucket, Prefix=name, MaxKeys=1)
        found = answer.get("Contents", [])
        return self._entry(found[0]) if found and found[0].get("Key") == name else None

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        with _translated(self.bucket, self.prefix + prefix, refuses=True):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                for found in page.get("Contents", []):
                    yield self._entry(found)

    def _entry(self, found: ObjectTypeDef) -> Entry:
        key = found.get("Key", "")[len(self.prefix) :]
        return Entry(key, found.get("Size", 0), found.get("ETag", "").strip('"'))

    def read(self, key: str) -> bytes:
        name = self.prefix + key
        for attempt in range(1, BODY_ATTEMPTS + 1):
            with _translated(self.bucket, name):
                answer = self.client.get_object(Bucket=self.bucket, Key=name)
                try:
                    return answer["Body"].read()
                except BROKEN_BODY:  # boto3 retries requests, not bodies that break off
                    if attempt == BODY_ATTEMPTS:
                        raise
        raise AssertionError("unreachable")

    def write(self, key: str, data: bytes) -> None:
        name = self.prefix + key
        with _translated(self.bucket, name, refuses=True):
            self.client.put_object(Bucket=self.bucket, Key=name, Body=data)


class _translated(AbstractContextManager[None]):  # noqa: N801 - reads as a verb where it is used
    """Turns boto3's exceptions into ours; `refuses`: a 403 concerns the place, not one object."""

    def __init__(self, bucket: str, key: str, refuses: bool = False) -> None:
        self.place = shortened(f"{S3_SCHEME}{bucket}/{key}")
        self.bucket = shortened(bucket)
        self.refuses = refuses

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        ours = self._ours(error)
        if ours is not None:
            raise ours from error

    def _ours(self, error: BaseException | None) -> JobError | None:
        if isinstance(error, NO_CREDENTIALS):
            return StoreRefusedError(f"{self.place}: no usable credentials: {error}")
        if isinstance(error, UNREACHABLE):
            return StoreDownError(f"{self.place}: the store does not answer: {error}")
        if isinstance(error, boto.ClientError):
            return self._from_answer(error)
        if isinstance(error, boto.ParamValidationError) and "bucket name" in str(error):
            return UsageError(  # boto3's own text is three regular expressions
                f"{self.bucket!r} cannot be a bucket's name; expected 3 to 63 lower-case letters,"
                " digits, dots and hyphens"
            )
        if isinstance(error, (boto.ParamValidationError, boto.InvalidRegionError)):
            return UsageError(f"{self.place}: {error}")
        if isinstance(error, boto.BotoCoreError):
            return StoreRefusedError(f"{self.place}: {error}")
        return None

    def _from_answer(self, error: boto.ClientError) -> JobError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        said = error.response.get("Error", {}).get("Message", "")
        if code in BAD_BUCKET:
            return StoreRefusedError(f"there is no bucket {self.bucket!r} ({code}: {said})")
        if code in BAD_CREDENTIALS:
            return StoreRefusedError(f"{self.place}: the credentials are wrong ({code}: {said})")
        if code == "RequestTimeTooSkewed":
            return StoreRefusedError(f"{self.place}: this machine's clock is wrong ({said})")
        if code in BUSY or status >= 500 or status == 429:
            return StoreDownError(f"{self.place}: the store is down or too busy ({code}: {said})")
        if status == 403:
            kind = StoreRefusedError if self.refuses else DeniedObjectError
            return kind(f"{self.place}: not allowed with these credentials ({code}: {said})")
        if code in ("NoSuchKey", "404"):
            return MissingObjectError(f"there is no object {self.place} ({code})")
        return StoreRefusedError(f"{self.place}: the store refused ({code or status}: {said})")

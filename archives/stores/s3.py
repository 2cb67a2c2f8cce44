"""S3 and what speaks its protocol, through boto3; endpoint and credentials as boto3 finds them."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from archives.errors import (
    MissingObjectError,
    NotPromisedError,
    StoreDownError,
    StoreRefusedError,
    shortened,
)
from archives.stores.s3_errors import (
    BROKEN_ANSWER,
    GONE,
    TAKEN,
    UNKNOWN_TO_STORE,
    UNREACHABLE,
    may_pass,
    reason,
    translated,
)
from archives.stores.store import S3_SCHEME, Entry, S3Settings

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        GetObjectOutputTypeDef,
        ListObjectsV2OutputTypeDef,
        ObjectTypeDef,
    )

Answer = TypeVar("Answer")

# Seconds before the second attempt, at most; doubled for each further one.
FIRST_DELAY = 0.2
LONGEST_DELAY = 20.0
PAGE = 1000  # the most that S3 lists at once
# Of one file; a client's connections are for its callers' threads.
UPLOAD_THREADS = 4
CHUNK = 2**20


def connect(settings: S3Settings) -> S3Client:
    """A client for `settings.connections` threads; raises StoreRefusedError if the set-up is
    wrong."""
    config = Config(
        # boto3's own retries are off. All requests of a client share their quota of 500: a retry
        # takes 5 or 14, a success gives 1 or its last retry's back, a 404 or 412 nothing. In a
        # simulation with a fifth of requests failing that lasts where all end well, but where a
        # tenth end in 404 or 412 it is empty after 2,000 to 3,000, and then the next fault ends
        # the job. They also pass over 409. Ten attempts of ours, each failing by 0.2 and apart
        # from the others, all fail once in ten million.
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=settings.connections,
        connect_timeout=settings.connect_seconds,
        read_timeout=settings.read_seconds,
    )
    try:
        client = boto3.session.Session().client("s3", config=config)
    except (boto.BotoCoreError, ValueError) as error:
        raise StoreRefusedError(f"S3 cannot be used as set up: {error}") from error
    # Here rather than around calls, so that each part of a large upload has its own attempts.
    retries: Any = _Retries(settings.attempts)  # boto3's types know no handler that answers
    client.meta.events.register("needs-retry.s3", retries)
    return client


class _Retries:
    """Tells botocore after each request whether to send it again, and after how many seconds."""

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts

    def __call__(
        self,
        attempts: int,
        response: tuple[Any, Mapping[str, Any]] | None,
        caught_exception: Exception | None,
        **_: object,
    ) -> float | None:
        if attempts >= self.attempts or not _passing(response, caught_exception):
            return None
        return _delay(attempts)


def _passing(response: tuple[Any, Mapping[str, Any]] | None, error: Exception | None) -> bool:
    if response is None:
        return isinstance(error, UNREACHABLE)
    code, status, _ = reason(response[1])
    return may_pass(code, status)


def _delay(attempt: int) -> float:
    """Seconds after the failed `attempt` (1 is the first), at random so that threads spread."""
    return random.uniform(0, min(FIRST_DELAY * 2.0 ** (attempt - 1), LONGEST_DELAY))


class S3Store:
    """A bucket's keys below a prefix ("" or ending with a slash)."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        prefix: str = "",
        attempts: int = S3Settings.attempts,
    ) -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = prefix
        self.attempts = attempts
        self.uri = f"{S3_SCHEME}{bucket}/{prefix}".rstrip("/")

    def below(self, prefix: str) -> S3Store:
        return S3Store(self.client, self.bucket, self.prefix + prefix, self.attempts)

    def find(self, key: str) -> Entry | None:
        name = self.prefix + key
        if not key or key.endswith("/"):
            return None
        with translated(self.bucket, name, refuses=True):
            # The first key with a prefix is the prefix itself; HEAD would hide errors' reasons.
            found = self._page(name, MaxKeys=1).get("Contents", [])
        return self._entry(found[0]) if found and found[0].get("Key") == name else None

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        after: dict[str, str] = {}
        while True:
            with translated(self.bucket, self.prefix + prefix, refuses=True):
                page = self._page(self.prefix + prefix, MaxKeys=PAGE, **after)
            for found in page.get("Contents", []):
                yield self._entry(found)
            if not page["IsTruncated"]:
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def _page(self, prefix: str, **options: Any) -> ListObjectsV2OutputTypeDef:
        def ask() -> ListObjectsV2OutputTypeDef:
            page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **options)
            # boto3 reads an empty body as an empty listing.
            if "IsTruncated" not in page or (
                page["IsTruncated"] and not page.get("NextContinuationToken")
            ):
                raise ResponseParserError("the listing does not say whether more follows")
            return page

        return self._complete(ask)

    def _complete(self, ask: Callable[[], Answer]) -> Answer:
        """What `ask` gives, asked again while the answer breaks off after its status: botocore
        took it for a success by then, so no retry of a request covers that."""
        for attempt in range(1, self.attempts):
            try:
                return ask()
            except BROKEN_ANSWER:
                time.sleep(_delay(attempt))
        return ask()

    def _entry(self, found: ObjectTypeDef) -> Entry:
        key = found.get("Key", "")[len(self.prefix) :]
        return Entry(key, found.get("Size", 0), found.get("ETag", "").strip('"'))

    def read(self, key: str) -> bytes:
        return self.fetch(key, lambda body: body.read())

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        return self._fetch(key, lambda answer: (answer["Body"].read(), answer["ETag"].strip('"')))

    def read_file(self, key: str, path: Path) -> None:
        def take(body: StreamingBody) -> None:
            file.seek(0)
            file.truncate()
            for chunk in body.iter_chunks(CHUNK):
                file.write(chunk)

        with path.open("wb") as file:
            self.fetch(key, take)

    def fetch(self, key: str, take: Callable[[StreamingBody], Answer]) -> Answer:
        """What `take` makes of an object's body; it is called anew where that breaks off. Errors as
        for `read`."""
        return self._fetch(key, lambda answer: take(answer["Body"]))

    def _fetch(self, key: str, take: Callable[[GetObjectOutputTypeDef], Answer]) -> Answer:
        name = self.prefix + key

        def ask() -> Answer:
            answer = self.client.get_object(Bucket=self.bucket, Key=name)
            try:
                return take(answer)
            # Named apart from a request that timed out: that one has used up its attempts.
            except (boto.ReadTimeoutError, HTTPError) as error:
                raise boto.ResponseStreamingError(error=error) from error

        with translated(self.bucket, name):
            return self._complete(ask)

    def write(self, key: str, data: bytes) -> None:
        name = self.prefix + key
        with translated(self.bucket, name, refuses=True):
            self.client.put_object(Bucket=self.bucket, Key=name, Body=data)

    def write_file(self, key: str, path: Path) -> None:
        name = self.prefix + key
        config = TransferConfig(max_concurrency=UPLOAD_THREADS)

        def upload() -> None:
            try:
                self.client.upload_file(str(path), self.bucket, name, Config=config)
            except S3UploadFailedError as error:
                failed = error.__context__
                # Of a completion whose answer was lost, the next attempt finds no upload.
                if isinstance(failed, boto.ClientError) and reason(failed.response)[0] == GONE:
                    raise boto.ResponseStreamingError(error=failed) from error
                raise

        with translated(self.bucket, name, refuses=True):
            self._complete(upload)

    def create(self, key: str, data: bytes) -> bool:
        return self._create(
            key, data, lambda: self.read(key) == data, lambda: self.write(key, data)
        )

    def create_file(self, key: str, path: Path) -> bool:
        with path.open("rb") as file:

            def same(body: StreamingBody) -> bool:
                file.seek(0)
                with contextlib.closing(body):  # of what differs the rest is not read
                    equal = all(file.read(len(each)) == each for each in body.iter_chunks(CHUNK))
                return equal and not file.read(1)

            return self._create(
                key, file, lambda: self.fetch(key, same), lambda: self.write_file(key, path)
            )

    def _create(
        self,
        key: str,
        body: bytes | BinaryIO,
        same: Callable[[], bool],
        write: Callable[[], None],
    ) -> bool:
        """same: whether what is there is `body`. write: writes it, whatever is there."""
        name = self.prefix + key
        for attempt in range(1, self.attempts + 1):
            if not isinstance(body, bytes):
                body.seek(0)
            with translated(self.bucket, name, refuses=True):
                try:
                    self.client.put_object(Bucket=self.bucket, Key=name, Body=body, IfNoneMatch="*")
                    return True
                except boto.ClientError as error:
                    _, status, _ = reason(error.response)
                    if status not in (TAKEN, UNKNOWN_TO_STORE):
                        raise
            # "Taken" may be by this very call, if an attempt did its work and its answer was lost.
            with contextlib.suppress(MissingObjectError):
                return same()
            if status == UNKNOWN_TO_STORE:
                write()
                return True
            time.sleep(_delay(attempt))
        place = shortened(f"{S3_SCHEME}{self.bucket}/{name}")
        raise StoreDownError(f"{place}: the store says it is there (412), and that it is not (404)")

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        name = self.prefix + key
        place = shortened(f"{S3_SCHEME}{self.bucket}/{name}")
        for attempt in range(1, self.attempts + 1):
            with translated(self.bucket, name, refuses=True):
                try:
                    self.client.put_object(
                        Bucket=self.bucket, Key=name, Body=data, IfMatch=f'"{tag}"'
                    )
                    return True
                except boto.ClientError as error:
                    code, status, said = reason(error.response)
                    if status == UNKNOWN_TO_STORE:
                        raise NotPromisedError(
                            f"{place}: the store knows no conditional writes ({said or code})"
                        ) from error
                    if status != TAKEN and code != "NoSuchKey":
                        raise
            # It may have changed by this very call, as for `create`.
            try:
                found, current = self.read_tagged(key)
            except MissingObjectError:
                return False
            if found == data or current != tag:
                return found == data
            time.sleep(_delay(attempt))
        raise StoreDownError(f"{place}: the store says it changed (412), and shows it unchanged")

    def delete(self, key: str) -> None:
        name = self.prefix + key
        with (
            contextlib.suppress(MissingObjectError),
            translated(self.bucket, name, refuses=True),
        ):
            self.client.delete_object(Bucket=self.bucket, Key=name)

"""Pictures by reference: objects of an S3 store, in buckets that the archive allows."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Sequence
from typing import Any

from handlers.fields import RequestError

logger = logging.getLogger(__name__)

SCHEME = "s3://"
# As S3 has it.
LONGEST_KEY = 1024
LARGEST = 64 * 2**20  # bytes: a picture of 50 megapixels has less
SECONDS = 10.0  # to connect, and to wait for bytes
MISSING = ("NoSuchKey", "NoSuchBucket", "404")


class ForbiddenBucketError(RequestError):
    """A bucket that the archive does not allow."""


class MissingObjectError(RequestError):
    """There is no such object."""


class StoreError(RuntimeError):
    """The object store did not give the object; the log says why."""


def read_object(reference: str, buckets: Sequence[str]) -> bytes:
    """The bytes of s3://BUCKET/KEY, BUCKET being one of `buckets`.

    The store is the one of this process's environment (AWS_ENDPOINT_URL, credentials, ...), and its
    answer is taken as it is: a redirect to another address is not followed. Raises RequestError for
    what is no reference or too large, ForbiddenBucketError, MissingObjectError, StoreError.
    """
    bucket, _, key = reference.removeprefix(SCHEME).partition("/")
    if not reference.startswith(SCHEME) or not bucket or not key:
        raise RequestError("picture", reference, "s3://BUCKET/KEY, and no other address")
    if bucket not in buckets:
        allowed = ", ".join(buckets) or "none: the archive was built without --allow-bucket"
        raise ForbiddenBucketError("picture", reference, f"objects of these buckets: {allowed}")
    if len(key.encode()) > LONGEST_KEY:
        raise RequestError("picture", reference, f"a key of at most {LONGEST_KEY} bytes")
    errors = importlib.import_module("botocore.exceptions")
    try:
        answer = _client().get_object(Bucket=bucket, Key=key)
        with answer["Body"] as body:
            data: bytes = body.read(LARGEST + 1)
    except errors.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in MISSING:
            raise MissingObjectError("picture", reference, "an object that is there") from error
        raise _down(reference, error) from error
    except (errors.BotoCoreError, OSError) as error:
        raise _down(reference, error) from error
    if len(data) > LARGEST:
        raise RequestError("picture", reference, f"an object of at most {LARGEST} bytes")
    return data


def _down(reference: str, error: Exception) -> StoreError:
    # What botocore says may name addresses and keys' ids: for the log, not for the client.
    logger.warning("the store did not give %s: %s", reference, error)
    return StoreError(f"the object store did not give {reference[:200]}; try again later")


@functools.cache
def _client() -> Any:
    try:
        boto3 = importlib.import_module("boto3")
    except ModuleNotFoundError as error:
        raise RequestError(
            "picture", SCHEME, "the picture itself: this server has no boto3"
        ) from error
    config = importlib.import_module("botocore.config").Config(
        connect_timeout=SECONDS, read_timeout=SECONDS, retries={"total_max_attempts": 2}
    )
    return boto3.session.Session().client("s3", config=config)

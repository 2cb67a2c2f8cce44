"""What S3's answers mean: which faults pass, and boto3's exceptions as ours."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from boto3.exceptions import S3UploadFailedError
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from archives.errors import (
    CommandError,
    DeniedObjectError,
    MissingObjectError,
    StoreDownError,
    StoreRefusedError,
    UsageError,
    shortened,
)
from archives.stores.store import S3_SCHEME

# An answer that began as a success and then broke off or does not match its checksum.
BROKEN_ANSWER = (
    boto.FlexibleChecksumError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    ResponseParserError,
)
UNREACHABLE = (boto.ConnectionError, boto.HTTPClientError)
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
GONE = "NoSuchUpload"
TAKEN, UNKNOWN_TO_STORE = 412, 501
# Whatever their status; the last three are of a body that was damaged on its way to the store.
PASSING = {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "BadDigest",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
}


def may_pass(code: str, status: int) -> bool:
    """Whether the same request may succeed later."""
    return code in PASSING or status == 429 or (status >= 500 and status != UNKNOWN_TO_STORE)


def reason(answer: Mapping[str, Any]) -> tuple[str, int, str]:
    """An answer's error: code, HTTP status, message."""
    error = answer.get("Error", {})
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return str(error.get("Code", "")), status, str(error.get("Message", ""))


class translated(AbstractContextManager[None]):  # noqa: N801 - reads as a verb where it is used
    """Turns boto3's exceptions into ours; `refuses`: a 403 concerns the place, not one object."""

    def __init__(self, bucket: str, key: str, refuses: bool = False) -> None:
        self.place = shortened(f"{S3_SCHEME}{bucket}/{key}")
        self.bucket = shortened(bucket)
        self.refuses = refuses

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, S3UploadFailedError):  # boto3's wrapping of what it handled
            error = error.__context__
        ours = self._ours(error)
        if ours is not None:
            raise ours from error

    def _ours(self, error: BaseException | None) -> CommandError | None:
        if isinstance(error, NO_CREDENTIALS):
            return StoreRefusedError(f"{self.place}: no usable credentials: {error}")
        if isinstance(error, ResponseParserError):
            return StoreDownError(
                f"{self.place}: the answers are not those of an S3 store: {error}"
            )
        if isinstance(error, (*UNREACHABLE, *BROKEN_ANSWER)):
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

    def _from_answer(self, error: boto.ClientError) -> CommandError:
        code, status, said = reason(error.response)
        if code in BAD_BUCKET:
            return StoreRefusedError(f"there is no bucket {self.bucket!r} ({code}: {said})")
        if code in BAD_CREDENTIALS:
            return StoreRefusedError(f"{self.place}: the credentials are wrong ({code}: {said})")
        if code == "RequestTimeTooSkewed":
            return StoreRefusedError(f"{self.place}: this machine's clock is wrong ({said})")
        if may_pass(code, status):
            return StoreDownError(f"{self.place}: the store is down or too busy ({code}: {said})")
        if status == 403:
            kind = StoreRefusedError if self.refuses else DeniedObjectError
            return kind(f"{self.place}: not allowed with these credentials ({code}: {said})")
        if code in ("NoSuchKey", "404"):
            return MissingObjectError(f"there is no object {self.place} ({code})")
        return StoreRefusedError(f"{self.place}: the store refused ({code or status}: {said})")

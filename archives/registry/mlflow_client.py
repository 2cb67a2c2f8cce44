"""Talking to an MLflow server: the connection, its errors as ours, and downloads within bounds.

MLflow's own client reads the credentials (MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN) and
the other MLFLOW_ variables. The server is not trusted: what it names is checked before it is used.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from archives.errors import (
    CommandError,
    MissingObjectError,
    StoreDownError,
    StoreRefusedError,
    UnsafeError,
    UsageError,
    one_line,
    shortened,
)

CREDENTIALS = (
    "; check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
)
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
SCHEME = "mlflow-artifacts"
PLACE = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9_.@+-]+)+")
CHUNK = 2**20
MISSING = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"}
DENIED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"}
WRONG = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE"}
DOWN = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "ABORTED"}
# MLflow's own 7 would have a person wait four minutes for a server that is not there.
DEFAULTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4", "MLFLOW_DISABLE_TELEMETRY": "true"}
QUIET = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"  # Lines of its own would spoil --json.


def open_client(tracking_uri: str) -> Any:
    """MLflow's client of the server at `tracking_uri`; nothing is asked of it yet.

    Where the environment does not say otherwise, telemetry is off and a request is tried five
    times. Raises UsageError for a URI that is not plain http(s), or where MLflow is not installed.
    """
    _check_address(tracking_uri)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ[QUIET] = "true"
    try:
        from mlflow import MlflowClient  # takes two seconds
    except ImportError as error:
        raise UsageError(
            "MLflow's client is not installed; pip install 'whybox[mlflow]' brings it"
        ) from error
    return MlflowClient(tracking_uri.rstrip("/"), tracking_uri.rstrip("/"))


def _check_address(tracking_uri: str) -> None:
    try:
        parts = urlsplit(tracking_uri)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            "--tracking-uri or MLFLOW_TRACKING_URI: expected the address of an MLflow server as in"
            " http://127.0.0.1:5000"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        # It would stand in logs and in lists of processes.
        raise UsageError(
            "the tracking URI holds credentials or a query; give them as MLFLOW_TRACKING_USERNAME"
            " and MLFLOW_TRACKING_PASSWORD, or as MLFLOW_TRACKING_TOKEN"
        )


@contextmanager
def translated(tracking_uri: str) -> Iterator[None]:
    """Raises what MLflow's client raises inside as a CommandError.

    StoreDownError: no answer, or one that may be better later. MissingObjectError: there is no such
    thing. StoreRefusedError: wrong credentials, or no MLflow server. UsageError: a wrong value.
    """
    from mlflow.exceptions import MlflowException, RestException

    try:
        yield
    except MlflowException as error:
        code = error.error_code
        if code in MISSING and not isinstance(error, RestException):
            raise StoreRefusedError(
                f"{tracking_uri} is no MLflow server: it knows no such request"
            ) from error
        hint = CREDENTIALS if code in DENIED else ""
        raise _kind(code)(
            f"MLflow at {tracking_uri}: {shortened(one_line(error))}{hint}"
        ) from error


def _kind(code: str) -> type[CommandError]:
    for codes, kind in (
        (MISSING, MissingObjectError),
        (DENIED, StoreRefusedError),
        (WRONG, UsageError),
        (DOWN, StoreDownError),
    ):
        if code in codes:
            return kind
    return StoreRefusedError


def _kind_of_status(status: int) -> type[CommandError]:
    if status == 404:
        return MissingObjectError
    return StoreRefusedError if 400 <= status < 500 and status not in (408, 429) else StoreDownError


def served_path(tracking_uri: str, artifact_uri: str) -> str:
    """Where the server itself serves the artifacts of `artifact_uri`, as a path below its address.

    Raises StoreRefusedError where they lie in a store that it does not serve, UnsafeError where
    they would be fetched from, or sent to, another host or a path that leaves its folder.
    """
    try:
        parts, server = urlsplit(artifact_uri), urlsplit(tracking_uri)
    except ValueError as error:
        raise UnsafeError(f"{tracking_uri} names no place of its artifacts") from error
    if parts.scheme != SCHEME:
        raise StoreRefusedError(
            f"{tracking_uri} keeps its artifacts at {shortened(artifact_uri)!r}; expected a place"
            f" that it serves itself, {SCHEME}:/...; start it with --serve-artifacts, or name an"
            " experiment whose artifacts it serves"
        )
    inside = PLACE.fullmatch(parts.path) and not parts.query and not parts.fragment
    if parts.netloc not in ("", server.netloc) or not inside:
        raise UnsafeError(
            f"{tracking_uri} names {shortened(artifact_uri)!r} as the place of its artifacts, which"
            " is another host or not a plain path"
        )
    return PROXY + parts.path


def upload(tracking_uri: str, path: str, source: Path) -> None:
    """Sends one file to `path`, which `served_path` gave, and the artifact's name.

    Raises the errors of `translated`, and OSError if the file cannot be read.
    """
    # Not MLflow's log_artifact, which asks the server anew where to write: that may be any folder.
    with source.open("rb") as file, _request(tracking_uri, path, "PUT", data=file):
        pass


def download(tracking_uri: str, path: str, target: Path, limit: int) -> str:
    """Fetches one artifact into the new file `target`; its sha256 (hex).

    path: as `served_path` gave it, and the artifact's name. Raises UnsafeError for more than
    `limit` bytes, and the errors of `translated`.
    """
    digest, size = hashlib.sha256(), 0
    # Not MLflow's download_artifacts, which writes all that the server sends, under its names.
    with _request(tracking_uri, path, "GET", stream=True) as answer, target.open("xb") as file:
        for chunk in answer.iter_content(CHUNK):
            size += len(chunk)
            if size > limit:
                raise UnsafeError(
                    f"{tracking_uri} sends more than {limit} bytes as {target.name}; refused"
                )
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


@contextmanager
def _request(tracking_uri: str, path: str, method: str, **options: Any) -> Iterator[Any]:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request
    from requests import RequestException

    credentials = get_default_host_creds(tracking_uri.rstrip("/"))
    name = path.rpartition("/")[2]
    with translated(tracking_uri):
        # A status that is worth another try raises only after the last one.
        answer = http_request(credentials, path, method, **options)
    with answer:
        if answer.status_code != 200:
            raise _kind_of_status(answer.status_code)(
                f"MLflow at {tracking_uri}: {name}: {answer.status_code}"
                f" {shortened(one_line(Exception(answer.reason)))}"
            )
        try:
            yield answer
        except RequestException as error:
            raise StoreDownError(
                f"MLflow at {tracking_uri}: {name} broke off: {shortened(one_line(error))}"
            ) from error

"""A client of TorchServe's management address: which models it has, and changing that."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from archives.errors import CommandError

PATIENCE = 10.0  # seconds
READY = "READY"
# Names of TorchServe's errors.
WRONG_TOKEN, IS_DEFAULT = "InvalidKeyException", "InvalidModelVersionException"
NOT_FOUND = ("ModelNotFoundException", "ModelVersionNotFoundException")
METHOD_NOT_ALLOWED = 405


class ManagementError(CommandError):
    """TorchServe did not do what it was asked. status: of its answer, 0 for none. kind: its name of
    the error, "" for none."""

    def __init__(self, message: str, status: int = 0, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a model that TorchServe has.

    file: in its model store. workers: their ids, and of those that have loaded the model `ready`.
    pending: requests that wait in its queue; those that are worked on are not among them.
    response_seconds: that a batch may take. batch_seconds: that a request waits for company.
    """

    name: str
    version: str
    file: str
    workers: tuple[str, ...]
    ready: tuple[str, ...]
    pending: int
    response_seconds: float
    batch_seconds: float

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RegisteredVersion:
        """Of TorchServe's description. Raises KeyError, TypeError or ValueError for another."""
        workers = values["workers"]
        return cls(
            str(values["modelName"]),
            str(values["modelVersion"]),
            str(values["modelUrl"]),
            tuple(str(each["id"]) for each in workers),
            tuple(str(each["id"]) for each in workers if each["status"] == READY),
            int(values["jobQueueStatus"]["pendingRequests"]),
            float(values["responseTimeout"]),
            float(values["maxBatchDelay"]) / 1000,
        )


@dataclass(frozen=True)
class Management:
    """url: the management address. token: gives the bearer token, as it is at that moment."""

    url: str
    token: Callable[[], str]

    def names(self) -> tuple[str, ...]:
        """Of all models."""
        found: list[str] = []
        page = ""
        while True:
            query = urlencode({"limit": 100, "next_page_token": page} if page else {"limit": 100})
            answer = self._ask("GET", f"/models?{query}")
            found += [str(each["modelName"]) for each in answer["models"]]
            page = str(answer.get("nextPageToken") or "")
            if not page:
                return tuple(found)

    def versions(self, name: str, version: str = "") -> tuple[RegisteredVersion, ...]:
        """This version, "all", or for "" that which is answered where a request names none; none
        where there is no such."""
        try:
            answer = self._ask("GET", _path(name, version))
            return tuple(RegisteredVersion.of(each) for each in answer)
        except ManagementError as error:
            if error.kind in NOT_FOUND:
                return ()
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ManagementError(
                f"{self.url} described {name} in a way that is not understood: {error!r}"
            ) from error

    def digest(self, name: str, version: str, patience: float = PATIENCE) -> str:
        """Of the archive that a worker has loaded, by its own word; "" if it gives none.

        The worker is asked, after all that wait in its queue. patience: seconds.
        """
        answer = self._ask("GET", f"{_path(name, version)}?customized=true", patience)
        own = answer[0].get("customizedMetadata")
        return str(own.get("digest", "")) if isinstance(own, dict) else ""

    def register(self, name: str, file: str, patience: float) -> None:
        """Has TorchServe load a file of its model store beside what it has; returns when its
        workers, as many as its configuration says, have loaded it. patience: seconds."""
        query = urlencode({"url": file, "model_name": name, "synchronous": "true"})
        self._ask("POST", f"/models?{query}", patience)

    def set_default(self, name: str, version: str) -> None:
        """From now on this version is answered where a request names none."""
        self._ask("PUT", f"{_path(name, version)}/set-default")

    def unregister(self, name: str, version: str, patience: float = PATIENCE) -> None:
        """Ends a version. Requests that it had are never answered: drain it first.

        Raises ManagementError, of kind IS_DEFAULT for the default among several.
        """
        self._ask("DELETE", _path(name, version), patience)

    def _ask(self, method: str, path: str, patience: float = PATIENCE) -> Any:
        token = self.token()
        try:
            return self._sent(method, path, token, patience)
        except ManagementError as error:
            # It was changed between reading and sending it.
            if error.kind != WRONG_TOKEN or self.token() == token:
                raise
            return self._sent(method, path, self.token(), patience)

    def _sent(self, method: str, path: str, token: str, patience: float) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(self.url + path, headers=headers, method=method)
        # Without proxies: the token stays on this machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=patience) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise _refusal(method, path, error) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ManagementError(
                f"{self.url} did not answer {method} {path} within {patience:.0f} s ({error})"
            ) from error


def _path(name: str, version: str) -> str:
    return "/".join(["/models", *(quote(each, safe="") for each in (name, version) if each)])


def _refusal(method: str, path: str, error: urllib.error.HTTPError) -> ManagementError:
    if error.code == METHOD_NOT_ALLOWED:
        return ManagementError(
            "this server takes no other archives while it runs; start it with --deployable:"
            " python -m archives serve --deployable",
            error.code,
        )
    kind, said = "", error.reason
    try:
        answer = json.loads(error.read())
        kind, said = str(answer["type"]), str(answer["message"])
    except (OSError, ValueError, KeyError, TypeError):
        said = f"{said}, without a reason"
    return ManagementError(
        f"TorchServe refused {method} {path} (status {error.code}): {said}", error.code, kind
    )

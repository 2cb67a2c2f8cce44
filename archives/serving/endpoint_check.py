"""An archive's golden sample, asked of the endpoint that serves it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from archives.errors import CommandError, UnsafeError
from archives.golden import Answer, Golden, differences

MOST_TOLD = 5
LONGEST_REASON = 500


class NoAnswerError(CommandError):
    """The endpoint did not explain a picture."""


class OtherAnswerError(UnsafeError):
    """The endpoint answers other than the archive says."""


def ask(
    url: str,
    token: str,
    name: str,
    version: str,
    picture: bytes,
    request: Mapping[str, Any],
    patience: float,
) -> Answer:
    """What POST /explanations/NAME/VERSION answers.

    url, token: of the inference address. picture: bytes. request: fields of ExplainRequest.
    patience: seconds. Raises NoAnswerError.
    """
    fields = {**request, "picture": base64.b64encode(picture).decode(), "format": "npz"}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    path = f"/explanations/{quote(name, safe='')}/{quote(version, safe='')}"
    sent = urllib.request.Request(url + path, json.dumps(fields).encode(), headers)
    # Without proxies: the token stays on this machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(sent, timeout=patience) as answer:
            return read_answer(answer.read())
    except urllib.error.HTTPError as error:
        said = error.read(LONGEST_REASON).decode(errors="replace")
        raise NoAnswerError(f"{path} answered with status {error.code}: {said}") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"{path} did not answer within {patience:.0f} s ({error})") from error


def read_answer(data: bytes) -> Answer:
    """Of an .npz as `handlers.endpoint.writing` makes it. Raises NoAnswerError for another."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            boxes = arrays["boxes"].astype(np.float64)
            maps = tuple(arrays[f"heatmap_{place}"] for place in range(len(boxes)))
            labels, scores = arrays["labels"], arrays["scores"].astype(np.float64)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise NoAnswerError(f"the endpoint's answer is no whole .npz: {error!r}") from error
    return Answer(boxes, labels, scores, maps)


def check(url: str, token: str, name: str, version: str, golden: Golden, patience: float) -> None:
    """Raises OtherAnswerError unless the endpoint explains the golden sample as it should, and
    NoAnswerError where it does not explain it at all."""
    found = ask(url, token, name, version, golden.picture, golden.request, patience)
    if lines := differences(golden.expected, found):
        more = f", and {len(lines) - MOST_TOLD} more" if len(lines) > MOST_TOLD else ""
        raise OtherAnswerError(
            f"{name} {version} explains its golden sample otherwise here than where it was built:"
            f" {'; '.join(lines[:MOST_TOLD])}{more}; this server has another version of torch or"
            " another processor, or the archive is not what it says"
        )

"""Who asks: what of a request's headers may stand in a log."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

# What others may put into our log.
SAFE = re.compile(r"[\w.:@/+=-]{1,128}", re.ASCII)
REQUEST_ID, CLIENT, AUTHORIZATION, BEARER = (
    "x-request-id",
    "x-whybox-client",
    "authorization",
    "bearer ",
)
SALT = b"whybox token id"


@dataclass(frozen=True)
class Caller:
    """request_id: the server's, as the answer's header X-Request-Id has it. correlation_id: what
    the client or a proxy sent in that header, "" for none. token: the id of the token that came, ""
    for none. client: a proxy's header X-Whybox-Client, "" for none; only who has the server's token
    can set it, since others do not come this far."""

    request_id: str = ""
    correlation_id: str = ""
    token: str = ""
    client: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str], request_id: str) -> Caller:
        """From a request's headers. request_id: the server's own. What does not look like an id
        counts as not there."""
        found = {name.lower(): text for name, text in headers.items()}
        scheme = found.get(AUTHORIZATION, "")
        token = scheme[len(BEARER) :].strip() if scheme.lower().startswith(BEARER) else ""
        return cls(
            request_id,
            _safe(found.get(REQUEST_ID, "")),
            token_id(token) if token else "",
            _safe(found.get(CLIENT, "")),
        )


@functools.lru_cache(maxsize=64)
def token_id(token: str) -> str:
    """Eight hexadecimal digits that name a token and do not give it away.

    By scrypt, 50 ms a token: TorchServe's tokens have 48 bits, and a plain hash of one that stands
    in a log could be tried out in hours.
    """
    return hashlib.scrypt(token.encode(), salt=SALT, n=2**14, r=8, p=1, dklen=4).hex()


def _safe(text: str) -> str:
    return text if SAFE.fullmatch(text) else ""

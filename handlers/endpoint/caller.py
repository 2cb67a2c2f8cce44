"""Who asks: what of a request's headers may stand in a log."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

# What others may put into our log.
SAFE = re.compile(r"[\w.:@/+=-]{1,128}", re.ASCII)
REQUEST_ID, CLIENT, AUTHORIZATION = "x-request-id", "x-whybox-client", "authorization"
# As TorchServe reads it.
BEARER = re.compile(r"Bearer\s+(\S+)", re.IGNORECASE)
# For a token's id: which of several the server looked at is not to be seen from here.
SEVERAL = "several"
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
        return cls(
            request_id,
            _safe(found.get(REQUEST_ID, "")),
            _token(headers),
            _safe(found.get(CLIENT, "")),
        )


@functools.lru_cache(maxsize=64)
def token_id(token: str) -> str:
    """Eight hexadecimal digits that name a token and do not give it away.

    By scrypt, 50 ms a token: TorchServe's tokens have 48 bits, and a plain hash of one that stands
    in a log could be tried out in hours.
    """
    return hashlib.scrypt(token.encode(), salt=SALT, n=2**14, r=8, p=1, dklen=4).hex()


def _token(headers: Mapping[str, str]) -> str:
    given = [text for name, text in headers.items() if name.lower() == AUTHORIZATION]
    if len(given) > 1:
        return SEVERAL
    found = BEARER.fullmatch(given[0].strip()) if given else None
    return token_id(found[1]) if found else ""


def _safe(text: str) -> str:
    return text if SAFE.fullmatch(text) else ""

from __future__ import annotations

import hashlib

import pytest

from handlers.endpoint.caller import Caller, token_id


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Caller("7")),
        ({"X-Request-Id": "abc-1.2"}, Caller("7", "abc-1.2")),
        ({"x-request-id": 'a" b\n'}, Caller("7")),
        ({"X-Request-Id": "x" * 129}, Caller("7")),
        ({"X-WHYBOX-CLIENT": "anna@shop"}, Caller("7", client="anna@shop")),
        ({"Authorization": "Basic abc"}, Caller("7")),
        ({"Authorization": "Bearer "}, Caller("7")),
        ({"authorization": "bearer s3cret"}, Caller("7", token=token_id("s3cret"))),
        ({"Authorization": "Bearer\ts3cret"}, Caller("7", token=token_id("s3cret"))),
        ({"Authorization": "Bearer a", "authorization": "Bearer b"}, Caller("7", token="several")),
    ],
)
def test_of_headers(headers: dict[str, str], expected: Caller) -> None:
    assert Caller.of(headers, "7") == expected


def test_tokens_have_ids_that_do_not_give_them_away() -> None:
    first, second = token_id("BxCoqJ3V"), token_id("BxCoqJ3W")
    assert first != second
    assert len(first) == 8
    plain = hashlib.sha256(b"BxCoqJ3V").hexdigest()
    assert first not in plain  # which can be tried out

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from archives.signatures.envelope import MAX_SIGNATURES, Envelope, Signature, strict_json

# https://github.com/secure-systems-lab/dsse/blob/master/protocol.md, its test vector.
KIND, BODY = "http://example.com/HelloWorld", b"hello world"
MESSAGE = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
SIG = "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
VECTOR: dict[str, Any] = {
    "payload": "aGVsbG8gd29ybGQ=",
    "payloadType": KIND,
    "signatures": [{"sig": SIG}],
}


def read(**changed: Any) -> Envelope:
    return Envelope.from_json(json.dumps(VECTOR | changed).encode())


def test_the_standards_vector() -> None:
    envelope = read()
    assert envelope == Envelope(KIND, BODY, (Signature("", base64.b64decode(SIG)),))
    assert envelope.message() == MESSAGE
    assert Envelope.from_json(envelope.to_json()) == envelope


def test_lengths_are_of_bytes() -> None:
    assert Envelope("é", b"\0\xff", ()).message() == b"DSSEv1 2 \xc3\xa9 2 \0\xff"


def test_what_the_standard_allows() -> None:
    url_safe = SIG.replace("+", "-").replace("/", "_")
    signatures = [{"sig": url_safe, "keyid": None, "cert": "x"}, {"sig": "", "keyid": "a"}]
    envelope = read(signatures=signatures, more={"new": 1})
    assert [each.key_id for each in envelope.signatures] == ["", "a"]
    assert envelope.signatures[0] == read().signatures[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"signatures": []}, f"expected 1 to {MAX_SIGNATURES} signatures, found 0"),
        ({"signatures": [{"sig": ""}] * 33}, "found 33"),
        ({"signatures": {}}, "expected signatures to be list, found dict"),
        ({"signatures": ["x"]}, "expected a JSON object, found str"),
        ({"signatures": [{}]}, "expected a field sig, found none"),
        ({"signatures": [{"sig": "", "keyid": 1}]}, "expected a keyid of text"),
        ({"signatures": [{"sig": "a b="}]}, "expected base64"),
        ({"payload": "é"}, "expected base64"),
        ({"payload": None}, "expected payload to be str, found NoneType"),
        ({"payloadType": 1}, "expected payloadType to be str, found int"),
    ],
)
def test_what_is_no_envelope(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(**changed)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected JSON"),
        (b"\xff\xfe{\0}\0", "expected JSON in UTF-8"),
        (b"[" * 50_000, "deeply nested"),
        (b'{"a":' * 10_000, "deeply nested"),
        (b'{"a": 1, "a": 2}', "each key once"),
        (b"[NaN]", "expected numbers, found NaN"),
        (b"[Infinity]", "expected numbers, found Infinity"),
        (b"1" * 5000, "integer string conversion"),
        (b"{} {}", "breaks off at byte 3"),
    ],
)
def test_json_is_strict(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strict_json(data)

"""DSSE, the envelope in which a signature travels with what it is of.

https://github.com/secure-systems-lab/dsse, version 1.0.2: what is signed is the payload's type and
its bytes, so that no payload can be taken for one of another type.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_SIGNATURE = 64 * 1024  # bytes of the file
MAX_SIGNATURES = 32  # in one envelope


@dataclass(frozen=True)
class Signature:
    """key_id: a hint that anybody can have changed, "" for none. value: the signature's bytes."""

    key_id: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """payload: bytes of the format `payload_type`; nothing in here was checked yet."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def message(self) -> bytes:
        """What is signed: the pre-authentication encoding."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)

    def to_json(self) -> bytes:
        """UTF-8 with a final newline."""
        values = {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [
                {"keyid": each.key_id, "sig": base64.b64encode(each.value).decode()}
                for each in self.signatures
            ],
        }
        return json.dumps(values, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Envelope:
        """Raises ValueError, which says what was expected, for what is no envelope. Fields that the
        standard does not know are left out, as it demands."""
        values = strict_json(data)
        kind, payload, several = fields(values, payloadType=str, payload=str, signatures=list)
        if not 0 < len(several) <= MAX_SIGNATURES:
            raise ValueError(f"expected 1 to {MAX_SIGNATURES} signatures, found {len(several)}")
        signatures = []
        for each in several:
            (value,) = fields(each, sig=str)
            key_id = each.get("keyid")
            if not isinstance(key_id, str | None):
                raise ValueError("expected a keyid of text")
            signatures.append(Signature(key_id or "", _bytes(value)))
        return cls(kind, _bytes(payload), tuple(signatures))


def strict_json(data: bytes) -> Any:
    """The value. Raises ValueError for what is not plain JSON in UTF-8: for a key that is there
    twice, NaN, and values too deep in one another, too."""
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_once, parse_constant=_no_number, parse_float=float
        )
    except RecursionError:
        raise ValueError("expected JSON of a few levels, found it deeply nested") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON, which breaks off at byte {error.pos}") from None
    except UnicodeDecodeError:
        raise ValueError("expected JSON in UTF-8") from None


def fields(value: Any, **kinds: type) -> Sequence[Any]:
    """An object's values by name. Raises ValueError if one is missing or of another type."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    for name, kind in kinds.items():
        found = value.get(name)
        if type(found) is not kind:  # a bool is an int, too
            raise ValueError(
                f"expected {name} to be {kind.__name__}, found {type(found).__name__}"
                if name in value
                else f"expected a field {name}, found none"
            )
    return [value[name] for name in kinds]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("expected each key once in a JSON object, found one twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"expected numbers, found {text}")


def _bytes(text: str) -> bytes:
    """Of base64 in either of its alphabets, as the standard allows."""
    try:
        return base64.b64decode(text.translate(_STANDARD), validate=True)
    except ValueError:
        raise ValueError("expected base64, found something else") from None


_STANDARD = str.maketrans("-_", "+/")

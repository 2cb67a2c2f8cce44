"""Signatures that do not hold, however they came about, each told from the others."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archives import verified_copy
from archives.errors import UnsafeError, UsageError
from archives.signatures import signing
from archives.signatures.envelope import MAX_SIGNATURES, Envelope, Signature
from archives.signatures.keys import PrivateKey
from archives.signatures.signing import (
    MAX_SIGNATURE,
    PAYLOAD_TYPE,
    SignatureError,
    Statement,
    check_signature,
    check_statement,
    sign,
    signature_of,
)
from archives.verify import UnsafeArchiveError, verify
from handlers.manifest import ArchiveError
from tests.archives.test_verify import packed, tiny_files

KEY, OTHER = PrivateKey.generate(), PrivateKey.generate()
ID = KEY.public.key_id


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Signed by KEY."""
    path = tmp_path / "tiny.mar"
    path.write_bytes(packed(tiny_files()))
    signature_of(path).write_bytes(sign(path, KEY))
    return path


def problem(archive: Path, *keys: PrivateKey, signature: Path | None = None) -> str:
    """Why the signature does not hold, in a word."""
    with pytest.raises(SignatureError) as caught:
        check_signature(archive, [key.public for key in keys or (KEY,)], signature)
    assert isinstance(caught.value, UnsafeError)
    assert caught.value.exit_code == 5
    assert str(caught.value).count("\n") == 0
    return caught.value.problem


def changed(archive: Path, **values: Any) -> None:
    path = signature_of(archive)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | values))


def forged(payload: bytes, kind: str = PAYLOAD_TYPE, key: PrivateKey = KEY) -> bytes:
    """Of whatever, rightly signed."""
    value = key.sign(Envelope(kind, payload, ()).message())
    return Envelope(kind, payload, (Signature(key.public.key_id, value),)).to_json()


def statement(archive: Path) -> dict[str, Any]:
    values = json.loads(Envelope.from_json(signature_of(archive).read_bytes()).payload)
    assert isinstance(values, dict)
    return values


def test_what_is_signed(archive: Path) -> None:
    data = archive.read_bytes()
    assert signature_of(archive).name == "tiny.mar.sig"
    assert statement(archive) == {
        "schema_version": 1,
        "name": "tiny",
        "version": "1.0",
        "digest": verify(archive).digest,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    }
    values = json.loads(signature_of(archive).read_bytes())
    assert values["payloadType"] == "application/vnd.whybox.archive+json"
    (only,) = values["signatures"]
    message = Envelope.from_json(signature_of(archive).read_bytes()).message()
    assert only["keyid"] == ID
    assert KEY.public.verifies(base64.b64decode(only["sig"]), message)
    assert sign(archive, KEY) == signature_of(archive).read_bytes()


def test_a_known_key_vouches(archive: Path, tmp_path: Path) -> None:
    assert check_signature(archive, [OTHER.public, KEY.public]) == ID
    elsewhere = signature_of(archive).rename(tmp_path / "elsewhere")
    assert check_signature(archive, [KEY.public], elsewhere) == ID


def test_keys_are_exchanged(archive: Path) -> None:
    """The new one signs too, then alone is known, then the old one signs anew."""
    signature_of(archive).write_bytes(sign(archive, OTHER))
    assert check_signature(archive, [OTHER.public]) == OTHER.public.key_id
    assert check_signature(archive, [KEY.public]) == ID
    signature_of(archive).write_bytes(sign(archive, KEY))
    both = Envelope.from_json(signature_of(archive).read_bytes()).signatures
    assert [each.key_id for each in both] == [OTHER.public.key_id, ID]


def test_signing_replaces_what_is_of_another_archive(archive: Path) -> None:
    archive.write_bytes(packed(tiny_files(more__py=b"pass")))
    signature_of(archive).write_bytes(sign(archive, OTHER))
    assert problem(archive, KEY) == "unknown-key"
    assert check_signature(archive, [OTHER.public])


def test_signing_verifies_first(tmp_path: Path) -> None:
    path = tmp_path / "bad.mar"
    path.write_bytes(packed(tiny_files() | {"handlers/__init__.py": b"1"}))
    with pytest.raises(UnsafeArchiveError, match=r"bad\.mar was tampered with"):
        sign(path, KEY)
    with pytest.raises(ArchiveError, match=r"none\.mar cannot be read: No such file"):
        sign(tmp_path / "none.mar", KEY)


def test_what_is_signed_is_what_was_verified(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever replaces the archive at that moment gets no signature of theirs."""
    before = sign(archive, KEY)

    def replaced(path: Path) -> Any:
        archive.write_bytes(b"evil")
        return verify(path)

    monkeypatch.setattr(verified_copy, "verify", replaced)
    assert sign(archive, KEY) == before
    assert problem(archive) == "other-bytes"


def test_what_is_in_the_way_of_a_signature(archive: Path) -> None:
    signature_of(archive).write_bytes(b"notes")
    with pytest.raises(UsageError, match=r"tiny\.mar\.sig is there, and no signature"):
        sign(archive, KEY)
    many = (Signature("x", b""),) * MAX_SIGNATURES
    payload = Statement("tiny", "1.0", verify(archive).digest, *signing._measured(archive))
    full = Envelope(PAYLOAD_TYPE, payload.to_json(), many)
    signature_of(archive).write_bytes(full.to_json())
    with pytest.raises(UsageError, match=f"has {MAX_SIGNATURES} signatures, the most"):
        sign(archive, KEY)


def test_no_signature(archive: Path) -> None:
    signature_of(archive).unlink()
    assert problem(archive) == "missing"


def test_the_signature_of_another_archive(archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mar"
    other.write_bytes(packed(tiny_files(more__py=b"pass")))
    assert problem(other, signature=signature_of(archive)) == "other-bytes"


def test_an_archive_that_was_replaced(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes() + b"\0")
    assert problem(archive) == "other-bytes"
    archive.write_bytes(archive.read_bytes()[:-2])
    assert problem(archive) == "other-bytes"


@pytest.mark.parametrize("keys", [(), (OTHER,)])
def test_an_unknown_key(keys: tuple[PrivateKey, ...], archive: Path) -> None:
    with pytest.raises(SignatureError, match=f"was made by {ID}; expected one of") as caught:
        check_signature(archive, [key.public for key in keys])
    assert caught.value.problem == "unknown-key"


@pytest.mark.parametrize("position", range(0, 8 * 1200, 997))
def test_a_flipped_bit_of_the_archive(position: int, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[position // 8] ^= 1 << position % 8
    archive.write_bytes(data)
    assert problem(archive) == "other-bytes"


def flipped(data: bytes, bit: int) -> str:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return base64.b64encode(changed).decode()


@pytest.mark.parametrize("bit", range(0, 512, 51))
@pytest.mark.parametrize("part", ["payload", "sig"])
def test_a_flipped_bit_of_the_signature(part: str, bit: int, archive: Path) -> None:
    envelope = Envelope.from_json(signature_of(archive).read_bytes())
    if part == "payload":
        changed(archive, payload=flipped(envelope.payload, bit))
    else:
        value = flipped(envelope.signatures[0].value, bit)
        changed(archive, signatures=[{"keyid": ID, "sig": value}])
    assert problem(archive) == "wrong"


def test_every_byte_of_the_file_counts_or_is_no_part_of_it(archive: Path) -> None:
    """What is changed anywhere is refused, unless nothing of it is read: the key's id, white
    space."""
    data = signature_of(archive).read_bytes()
    statement = Envelope.from_json(data).payload
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1
        signature_of(archive).write_bytes(damaged)
        try:
            check_signature(archive, [KEY.public])
        except SignatureError:
            continue
        assert Envelope.from_json(bytes(damaged)).payload == statement


def swapped(archive: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Another payload under the signature that is there."""
    values = statement(archive)
    change(values)
    changed(archive, payload=base64.b64encode(json.dumps(values).encode()).decode())


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(name="other"),
        lambda values: values.update(sha256="0" * 64),
        lambda values: values.clear(),
        lambda values: None,  # the same, with white space
    ],
)
def test_another_payload(change: Callable[[dict[str, Any]], Any], archive: Path) -> None:
    swapped(archive, change)
    assert problem(archive) == "wrong"


@pytest.mark.parametrize(
    "kind", ["application/vnd.in-toto+json", "", PAYLOAD_TYPE + "\0", "\ud800"]
)
def test_a_payload_of_another_type(kind: str, archive: Path) -> None:
    changed(archive, payloadType=kind)
    assert problem(archive) == "malformed"
    payload = Envelope.from_json(signature_of(archive).read_bytes()).payload
    if kind != "\ud800":
        signature_of(archive).write_bytes(forged(payload, kind))
        assert problem(archive) == "malformed"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "expected JSON"),
        (b"[]", "expected a JSON object"),
        (b"{}", "expected a field schema_version"),
        (b'{"schema_version": 2}', "expected schema_version 1, found 2"),
        (b'{"schema_version": true}', "expected schema_version to be int, found bool"),
        (b'{"schema_version": 1}', "expected a field name"),
        (b"[" * 9000, "expected JSON of a few levels"),
    ],
)
def test_what_a_known_key_signed_and_is_no_statement(
    payload: bytes, message: str, archive: Path
) -> None:
    signature_of(archive).write_bytes(forged(payload))
    with pytest.raises(SignatureError, match=f"{ID}, but says nothing of an archive: {message}"):
        check_signature(archive, [KEY.public])
    assert problem(archive) == "malformed"


@pytest.mark.parametrize(
    "more", [{"size": "1"}, {"size": 1.0}, {"digest": "A" * 64}, {"name": None}, {"extra": 1}]
)
def test_statements_are_strict(more: dict[str, Any], archive: Path) -> None:
    signature_of(archive).write_bytes(forged(json.dumps(statement(archive) | more).encode()))
    assert problem(archive) == "malformed"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"null",
        b"{}",
        b"[" * MAX_SIGNATURE,
        b" " * (MAX_SIGNATURE + 1),
        b'{"payload": "", "payloadType": "", "signatures": []}',
        b'{"payload": "", "payload": "", "payloadType": "", "signatures": [{"sig": ""}]}',
    ],
)
def test_what_is_no_envelope(data: bytes, archive: Path) -> None:
    signature_of(archive).write_bytes(data)
    assert problem(archive) == "malformed"


def test_a_huge_file_is_not_read(archive: Path) -> None:
    with signature_of(archive).open("wb") as file:
        file.truncate(2**40)  # sparse
    assert problem(archive) == "malformed"


def test_a_folder_for_a_signature(archive: Path) -> None:
    signature_of(archive).unlink()
    signature_of(archive).mkdir()
    assert problem(archive) == "malformed"


def test_a_keys_id_is_a_hint(archive: Path) -> None:
    """It is not signed, so it decides nothing but the message."""
    value = json.loads(signature_of(archive).read_bytes())["signatures"][0]["sig"]
    for hint in ({}, {"keyid": ""}, {"keyid": OTHER.public.key_id}):
        changed(archive, signatures=[{"sig": value, **hint}])
        assert check_signature(archive, [KEY.public]) == ID
    changed(archive, signatures=[{"sig": value, "keyid": ID}])
    assert problem(archive, OTHER) == "unknown-key"
    changed(archive, signatures=[{"sig": value, "keyid": OTHER.public.key_id}])
    assert problem(archive, OTHER) == "wrong"


def test_a_hint_writes_nothing_to_a_terminal(archive: Path) -> None:
    value = json.loads(signature_of(archive).read_bytes())["signatures"][0]["sig"]
    changed(archive, signatures=[{"sig": value, "keyid": "\x1b[2J" + "x" * 1000}])
    with pytest.raises(SignatureError, match="made by something that is no key id") as caught:
        check_signature(archive, [OTHER.public])
    assert "\x1b" not in str(caught.value)


def test_one_good_signature_among_others(archive: Path) -> None:
    (good,) = json.loads(signature_of(archive).read_bytes())["signatures"]
    others = [{"sig": "", "keyid": ID}, {"sig": "AAAA"}, {"sig": flipped(b"\0" * 64, 3)}]
    changed(archive, signatures=[*others, good])
    assert check_signature(archive, [OTHER.public, KEY.public]) == ID
    changed(archive, signatures=others)
    assert problem(archive) == "wrong"


def test_what_a_signature_is_of(archive: Path) -> None:
    """Without any key, so that its signatures may be anybody's."""
    check_statement(archive, signature_of(archive))
    changed(archive, signatures=[{"sig": "AAAA"}])
    check_statement(archive, signature_of(archive))
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(SignatureError, match="it was changed or replaced since") as caught:
        check_statement(archive, signature_of(archive))
    assert caught.value.problem == "other-bytes"


@pytest.mark.parametrize(
    ("data", "problem"),
    [(b"{}", "malformed"), (forged(b"{}"), "malformed"), (forged(b"", "x"), "malformed"),
     (None, "missing")],
)  # fmt: skip
def test_what_is_of_nothing(data: bytes | None, problem: str, archive: Path) -> None:
    signature_of(archive).unlink()
    if data is not None:
        signature_of(archive).write_bytes(data)
    with pytest.raises(SignatureError) as caught:
        check_statement(archive, signature_of(archive))
    assert caught.value.problem == problem


def test_an_archive_that_is_not_there(archive: Path) -> None:
    signature = signature_of(archive)
    with pytest.raises(UsageError, match=r"none\.mar cannot be read"):
        check_signature(archive.with_name("none.mar"), [KEY.public], signature)

from __future__ import annotations

from urllib.parse import unquote

import pytest

from jobs.names import array_name, encoded, file_name, printable

KEYS = ["a.jpg", "a/b c.jpg", "../é#?%.jpg", ".", "..", "日" * 20]


@pytest.mark.parametrize("key", KEYS)
def test_an_encoded_key_is_one_reversible_safe_name(key: str) -> None:
    assert "/" not in encoded(key)
    assert unquote(encoded(key)) == key
    assert file_name(key) == encoded(key)


def test_examples() -> None:
    assert file_name("night/a b.jpg") == "night%2Fa%20b.jpg"
    assert array_name("night/a.jpg", 3) == "night%2Fa.jpg#3"
    assert array_name("night/a.jpg", 3, "body.layer4") == "night%2Fa.jpg#3#body.layer4"


def test_long_keys_are_cut_and_stay_apart() -> None:
    names = {file_name("x" * 300 + end) for end in ("1.jpg", "2.jpg")}
    assert len(names) == 2
    assert {len(f"{name}.10000.jpg".encode()) for name in names} == {250}
    assert all(name.startswith("x" * 200) for name in names)


def test_bytes_that_are_not_utf8_can_be_shown_and_named() -> None:
    key = b"caf\xe9.jpg".decode(errors="surrogateescape")
    assert printable(key) == "caf\\xe9.jpg"
    assert file_name(key) == "caf%E9.jpg"

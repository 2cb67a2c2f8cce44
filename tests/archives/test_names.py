from __future__ import annotations

import pytest

from archives.errors import UsageError
from archives.names import Reference, looks_like_reference, read_reference, version_order


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("demo@production", Reference("demo", "production", "")),
        ("demo@1.2", Reference("demo", "", "1.2")),
        ("a.b-c_9@customer-7", Reference("a.b-c_9", "customer-7", "")),
        ("demo@0", Reference("demo", "", "0")),
        ("demo@v1", Reference("demo", "v1", "")),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert read_reference(text) == expected
    assert str(expected) == text
    assert looks_like_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "demo", "demo@", "@production", "demo@Production", "demo@two words",
        "demo@../x", "demo@a/b",
        "demo@a.b", "demo@-a", "demo@a-", "demo@a--b", "demo@1.2.3.4.5", "demo@1.", "demo@1a",
        "demo@production\n", "demo@1.0\n", "de mo@1.0", "../demo@1.0", "a@b@1.0",
        "demo@" + "a" * 51,
        "demo@" + "1" * 19, "x" * 101 + "@1", "demo@é", "demo@١",
    ],
)  # fmt: skip
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        read_reference(text)


def test_the_order_of_versions() -> None:
    versions = ["2", "1.10", "1.9", "1.9.0", "01.9", "10.0"]
    assert sorted(versions, key=version_order) == ["01.9", "1.9", "1.9.0", "1.10", "2", "10.0"]


@pytest.mark.parametrize("text", ["a@b.mar", "dir/demo@production", "demo.mar"])
def test_what_is_a_path(text: str) -> None:
    assert not looks_like_reference(text)

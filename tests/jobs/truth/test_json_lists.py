"""JSON that is read an element at a time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.truth.json_lists import JsonLists

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), st.sampled_from([None, 1]))
def test_it_reads_what_json_does(value: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    expected = [
        (name, each)
        for name, own in value.items()
        for each in (own if isinstance(own, list) else [own])
    ]
    lists = JsonLists(text)
    found = list(lists.elements())
    assert [(name, each) for name, each, _ in found] == expected
    assert [lists.value(place)[0] for _, _, place in found] == [each for _, each in expected]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "character 0: expected {, got 'the end'"),
        ("[]", "character 0: expected {"),
        ("{1: 2}", "character 1: expected a name in quotes"),
        ('{"a" 2}', "character 5: expected :"),
        ('{"a": [1 2]}', "character 9: expected ]"),
        ('{"a": [1,]}', "Expecting value"),
        ('{"a": [1', "expected ], got 'the end'"),
        ('{"a": 1} x', "character 9: expected the end, got 'x'"),
        ('{"a": ' + "[" * 100_000, "nested so deep"),
    ],
)
def test_what_is_no_such_object(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("[", r"\[")):
        list(JsonLists(text).elements())

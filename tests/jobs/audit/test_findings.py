"""What parts of an audit keep for its report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from archives.errors import ConflictError
from archives.stores.opening import open_store
from jobs.audit.findings import Finding, Image, Part, Table, read_part, worst_first, write_part


def test_a_part_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    table = Table("T", "how", ("a", "b", "c"), (("x", 1, (0.5, 0.1)), ("y", None, 2.5)))
    findings = (Finding("a.jpg", 2, "low energy", 0.25, "why"), Finding("b.jpg", None, "f", 1, "w"))
    part = Part("one", "One", "text", (table,), findings, {"figure": 0.5}, (Image("p", "a", "c"),))
    write_part(output, part)
    assert read_part(output, "one") == part
    assert read_part(output, "two") is None


@pytest.mark.parametrize("text", [b"no JSON", b"{}", b"[]"])
def test_what_is_no_part_is_named(text: bytes, tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    write_part(output, Part("one", "One", "text"))
    output.write("audit/one.json", text)
    with pytest.raises(ConflictError, match=r"audit/one\.json is no part of an audit"):
        read_part(output, "one")


@pytest.mark.parametrize(
    ("altered", "why"),
    [
        ({"name": "../one"}, "name: got '../one'; expected 'one'"),
        ({"title": 1}, "title: got 1; expected a text"),
        ({"figures": []}, "expected numbers by name"),
        ({"figures": {"a": "1"}}, "'a' is '1'; expected a finite number"),
        ({"figures": {"a": math.nan}}, "'a' is nan; expected a finite number"),
        ({"figures": {"a": True}}, "'a' is True; expected a finite number"),
        *(
            (
                {"images": [{"path": path, "alt": "", "caption": ""}]},
                "expected one below the output",
            )
            for path in ("/a", "", "a//b", "a/../../b", "..", "./a", "..\\a")
        ),
    ],
)
def test_a_part_that_was_altered_is_refused(
    altered: dict[str, object], why: str, tmp_path: Path
) -> None:
    output = open_store(str(tmp_path))
    write_part(output, Part("one", "One", "text"))
    summary = json.loads(output.read("audit/one.json"))
    output.write("audit/one.json", json.dumps(summary | altered).encode())
    with pytest.raises(ConflictError, match=why):
        read_part(output, "one")


def test_a_figure_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    write_part(output, Part("one", "", "", figures={"a": math.nan, "b": math.inf, "c": 1.0}))
    found = read_part(output, "one")
    assert found is not None
    assert found.figures == {"c": 1.0}


def test_the_worst_come_first() -> None:
    found = [
        Finding(key, index, "f", severity, "")
        for key, index, severity in (("b", 1, 0.5), ("a", 2, 0.5), ("a", 0, 0.5), ("c", 0, 0.9))
    ]
    ordered = [(each.key, each.index) for each in worst_first(found)]
    assert ordered == [("c", 0), ("a", 0), ("a", 2), ("b", 1)]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"severity: got 1.5; expected 0 to 1"):
        Finding("a", 0, "f", 1.5, "")
    with pytest.raises(ValueError, match=r"got a row of 1 cells; expected 2"):
        Table("", "", ("a", "b"), (("x",),))

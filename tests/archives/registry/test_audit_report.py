from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from archives.errors import MissedError
from archives.names import Reference
from archives.registry.audit_report import SCHEMA_FILE, evaluate, read_report, schema
from tests.conftest import put

DIGEST = "ab" * 32
REFERENCE = Reference("demo", "", "1.0")
REPORT: dict[str, Any] = {
    "schema_version": 1,
    "archive": {"name": "demo", "version": "1.0", "digest": DIGEST},
    "created": "2026-01-02T03:04:05+01:00",
    "figures": {"pointing": 0.7, "deletion": 0.25, "pictures": 100},
    "thresholds": [
        {"figure": "pointing", "at_least": 0.7},
        {"figure": "deletion", "at_most": 0.25},
        {"figure": "pictures", "at_least": 50},
    ],
    "passed": True,
}


def changed(**values: Any) -> bytes:
    return json.dumps(REPORT | values).encode()


def figures(**values: Any) -> bytes:
    return changed(figures=REPORT["figures"] | values)


def of(digest: str) -> bytes:
    return changed(archive=REPORT["archive"] | {"digest": digest})


def threshold(**values: Any) -> bytes:
    return changed(thresholds=[{"figure": "pointing"} | values])


def test_figures_on_their_thresholds_pass() -> None:
    report = evaluate(changed(notes="n", links={"pages": "report/index.html"}), REFERENCE, DIGEST)
    assert (report.passed, report.misses()) == (True, [])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (figures(pointing=0.699), "pointing is 0.699, less than 0.7"),
        (figures(deletion=0.26), "deletion is 0.26, more than 0.25"),
        (changed(figures={"pointing": 0.9, "pictures": 99}), "deletion is not among the figures"),
        (figures(pointing=float("nan")), "expected numbers, found NaN"),
        (figures(pointing=float("inf")), "expected numbers, found Infinity"),
        (changed().replace(b"0.25", b"1e999"), "figures.deletion: .*finite"),
        (changed().replace(b'"passed"', b'"passed": true, "passed"'), "each key once .* twice"),
        (figures(pointing="0.9"), "figures.pointing: .*number"),
        (figures(pointing=True), "figures.pointing: .*number"),
        (figures(pointing=None), "figures.pointing: .*number"),
        (threshold(at_least=0, at_most=None), "thresholds.0.at_most: .*leave it out"),
        (threshold(at_most=None), "thresholds.0.at_most: .*leave it out"),
        (threshold(), "pointing: give one of at_least and at_most"),
        (threshold(at_least=0, at_most=1), "pointing: give one of at_least and at_most"),
        (changed(thresholds=[]), "thresholds: .*at least 1 item"),
        (changed(passed=False), "says that it did not pass, though pointing, deletion, pictures"),
        (changed(passed="yes"), "passed: .*boolean"),
        (changed(schema_version=2), "schema_version"),
        (changed(schema_version=True), "schema_version: .*expected a number"),
        (changed(other=1), "other: "),
        (changed(created=0), "created: .*expected a date and time"),
        (changed(created="1767319445"), "created: .*expected a date and time"),
        (changed(created="2026-01-02T03:04:05"), "created: .*timezone"),
        (of("c" * 64), f"of demo 1.0, digest c+; demo@1.0 has digest {DIGEST}"),
        (of(""), "archive.digest"),
        (b"", "the audit report is none"),
        (b"[]", "the audit report is none"),
        (b"[" * 100_000, "the audit report is none"),
    ],
)  # fmt: skip
def test_what_does_not_pass(data: bytes, message: str) -> None:
    with pytest.raises(MissedError, match=message) as caught:
        evaluate(data, REFERENCE, DIGEST)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "data",
    [
        threshold(figure="\x1b[2J", at_least=0),
        threshold(figure="\x1b[2J"),
        changed(figures={"\x1b[2J": "x"}),
        changed(**{"\x1b[2J": 1}),
        changed(archive={"name": "\x1b[2J" + "x" * 1000, "version": "1", "digest": "c" * 64}),
        changed(figures={"\x1b[2J": 0}, thresholds=[{"figure": "\x1b[2J", "at_least": 1}]),
        changed(
            figures={"\x1b[2J": 0}, thresholds=[{"figure": "\x1b[2J", "at_most": 1}], passed=False
        ),
    ],
)
def test_names_cannot_steer_the_terminal(data: bytes) -> None:
    with pytest.raises(MissedError, match=r"\\x1b\[2J") as caught:
        evaluate(data, REFERENCE, DIGEST)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_who_says_it_passed_and_does_not() -> None:
    with pytest.raises(MissedError, match=r"less than 0\.8 \(and yet it says it passed\)"):
        evaluate(threshold(at_least=0.8), REFERENCE, DIGEST)


def test_a_report_is_read_from_anywhere(place: str) -> None:
    put(place, {"audit.json": b"1"})
    assert read_report(f"{place}/audit.json") == b"1"
    with pytest.raises(MissedError, match=r"there is no audit report at .*none\.json"):
        read_report(f"{place}/none.json")


def test_the_schema_is_shipped_and_says_the_same() -> None:
    """Otherwise: python -m archives schemas --output docs/schemas"""
    docs = Path(__file__).parents[3] / "docs" / "schemas"
    assert json.loads((docs / SCHEMA_FILE).read_text()) == schema()
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    assert validator.is_valid(REPORT)
    for data in (
        threshold(),
        threshold(at_least=0, at_most=1),
        threshold(at_least=0, at_most=None),
        threshold(at_most=None),
        changed(thresholds=[]),
        changed(schema_version=True),
        changed(created=0),
        changed(created="0"),
    ):
        assert not validator.is_valid(json.loads(data))

"""How things are, in a sentence."""

from __future__ import annotations

import pytest

from jobs.audit.findings import Finding, Part
from jobs.page.audits import Flags, Limit, Limits
from jobs.page.verdict import Step, verdict

MET = Limit("energy", 0.5, "≥ 0.3", "")
MISSED = Limit("energy", 0.2, "≥ 0.3", "energy is 0.2, less than 0.3")
BOX = Finding("a", 1, "outside", 0.2, ".")
OTHER = Finding("a", 2, "outside", 0.1, ".")
WHOLE = Finding("b", None, "missed & gone", 0.9, ".")


NONE_WRONG = "None of 4,031 boxes looks wrong"
NO_AUDIT = "4,031 boxes in 200 pictures are explained, and no audit has looked at them"
UNHARMED, FAILED = "no picture failed", "2 of 200 pictures failed"
ALL_MET, UNSET = "nothing missed its threshold", "no thresholds were set"


@pytest.mark.parametrize(
    ("findings", "failures", "limits", "level", "clauses"),
    [
        ([], 0, Limits((MET,)), "good", (NONE_WRONG, UNHARMED, ALL_MET)),
        ([BOX], 0, None, "look", ("1 of 4,031 boxes looks wrong", UNHARMED, UNSET)),
        (
            [BOX, OTHER, WHOLE],
            2,
            Limits((MET,)),
            "look",
            ("2 of 4,031 boxes look wrong, and 1 picture as a whole", FAILED, ALL_MET),
        ),
        (
            [WHOLE],
            0,
            Limits((MISSED, MET)),
            "bad",
            (
                "1 picture of 200 looks wrong as a whole",
                UNHARMED,
                "1 of 2 figures missed its threshold",
            ),
        ),
        (
            [],
            0,
            Limits((MISSED,) * 2),
            "bad",
            (NONE_WRONG, UNHARMED, "2 of 2 figures missed their threshold"),
        ),
        (
            [],
            0,
            Limits(problem="No."),
            "bad",
            (NONE_WRONG, UNHARMED, "its thresholds do not count"),
        ),
        (None, 0, None, "unknown", (NO_AUDIT, UNHARMED, UNSET)),
        (None, 2, None, "look", (NO_AUDIT, FAILED, UNSET)),
    ],
)
def test_sentences(
    findings: list[Finding] | None,
    failures: int,
    limits: Limits | None,
    level: str,
    clauses: tuple[str, ...],
) -> None:
    counts = {"pictures": 200, "detections": 4031, "failures": failures}
    parts = [] if findings is None else [Part("triage", "", "", findings=tuple(findings))]
    found = verdict(counts, parts, Flags.of(parts), limits)
    assert (found.level, found.sentence) == (level, "; ".join(clauses) + ".")
    assert found.steps


@pytest.mark.parametrize(
    ("findings", "limits", "level", "sentence"),
    [
        (None, None, "look", "No box was found in 9 pictures, and no audit has looked at them;"),
        ([], Limits((MET,)), "look", "No box was found in 9 pictures;"),
        ([WHOLE], None, "look", "1 picture of 9 looks wrong as a whole;"),
        ([], Limits((MISSED,)), "bad", "No box was found in 9 pictures;"),
    ],
)
def test_a_run_without_boxes_does_not_look_right(
    findings: list[Finding] | None, limits: Limits | None, level: str, sentence: str
) -> None:
    counts = {"pictures": 9, "detections": 0, "failures": 0}
    parts = [] if findings is None else [Part("triage", "", "", findings=tuple(findings))]
    found = verdict(counts, parts, Flags.of(parts), limits)
    assert found.level == level
    assert found.sentence.startswith(sentence)
    assert found.steps[-1].text.startswith("Look at the pictures: is there nothing to find")


def test_what_to_do_next_the_most_urgent_first() -> None:
    parts = [Part("triage", "", "", findings=(BOX, OTHER, WHOLE))]
    counts = {"pictures": 9, "detections": 9, "failures": 1}
    assert verdict(counts, parts, Flags.of(parts), Limits((MISSED,))).steps == (
        Step("See by how much it missed: energy", "#thresholds"),
        Step("Read why 1 picture failed", "#failures"),
        Step("Look at 1 finding: missed & gone", "#flag=missed+%26+gone"),
        Step("Look at 2 findings: outside", "#flag=outside"),
    )

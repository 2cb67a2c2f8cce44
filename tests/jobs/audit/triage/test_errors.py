"""What is wrong with detections, held against true objects."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.audit.triage.errors import Missed, Why, judged, missed_finding
from jobs.saved_run import SavedPicture
from jobs.truth.objects import Objects

Box = tuple[float, float, float, float]
A: Box = (0, 0, 10, 10)
HALF_A: Box = (0, 0, 10, 4)
B: Box = (50, 50, 60, 60)
KNOWN = ("cat", "dog")
PLACED = "badly placed box"


def objects(*listed: tuple[str, Box], difficult: int = -1, crowd: int = -1) -> Objects:
    number = len(listed)
    places = np.arange(number)
    return Objects(
        np.array([box for _, box in listed], dtype=np.float64).reshape(-1, 4),
        tuple(name for name, _ in listed),
        places == difficult,
        places == crowd,
        (None,) * number,
    )


@pytest.mark.parametrize(
    ("detections", "truth", "flags", "missed", "explained"),
    [
        ([("cat", 0.9, A)], objects(("cat", A)), [], [], ()),
        ([], objects(("cat", A)), [], ["cat"], ()),
        ([("cat", 0.9, B)], objects(("cat", A)), ["false alarm"], ["cat"], ()),
        ([("dog", 0.9, A)], objects(("cat", A)), ["wrong category"], [], ("wrong category",)),
        (
            [("cat", 0.9, HALF_A)],
            objects(("cat", A)),
            ["badly placed box"],
            [],
            ("badly placed box",),
        ),
        ([("cat", 0.9, A), ("cat", 0.8, A)], objects(("cat", A)), ["second box"], [], ()),
        # A wrong category where its own object is found beside it: only the detection is wrong.
        ([("cat", 0.9, A), ("dog", 0.8, A)], objects(("cat", A)), ["wrong category"], [], ()),
        # What is difficult or a crowd, or not the detector's, counts neither way.
        ([("cat", 0.9, A)], objects(("cat", A), difficult=0), [], [], ()),
        ([], objects(("cat", A), crowd=0), [], [], ()),
        ([], objects(("bird", A)), [], [], ()),
        ([("cat", 0.9, A)], objects(), ["false alarm"], [], ()),
    ],
)
def test_kinds_by_hand(
    detections: list[tuple[str, float, Box]],
    truth: Objects,
    flags: list[str],
    missed: list[str],
    explained: tuple[str, ...],
) -> None:
    names = ("x1", "y1", "x2", "y2")
    rows = [
        {"index": 3 * place, "category": name, "score": score, **dict(zip(names, box, strict=True))}
        for place, (name, score, box) in enumerate(detections)
    ]
    picture = SavedPicture("n", "k", tuple(rows), lambda _: pytest.fail("no map is read"))
    found = judged(picture, rows, truth, KNOWN)
    assert [each.finding.flag for each in found.found] == flags
    assert [each.category for each in found.missed] == missed
    assert found.explained == explained
    for each in found.found:  # the last detection is the wrong one
        name, score, _ = detections[-1]
        told = each.key, each.category, each.finding.key, each.finding.index, each.finding.severity
        assert told == ("k", name, "n", 3 * (len(rows) - 1), score)


def test_in_words() -> None:
    row = {"index": 0, "category": "cat", "score": 0.9, "x1": 0, "y1": 0, "x2": 10, "y2": 4}
    picture = SavedPicture("n", "k", (row,), lambda _: pytest.fail("no map is read"))
    ((noticed,), _, number, _) = vars(judged(picture, [row], objects(("cat", A)), KNOWN)).values()
    assert noticed.finding.says == "cat 0.90: is badly placed on the cat at 0, 0, 10, 10, IoU 0.40"
    assert number == 1
    found = missed_finding("k", "n", Missed("cat", A, 0.0), Why("suppressed", "so it was", 0.7))
    assert found.finding.says == "the cat at 0, 0, 10, 10 was missed, suppressed: so it was"
    assert (found.finding.index, found.finding.group) == (None, "suppressed")

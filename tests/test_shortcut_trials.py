"""The trials of `jobs shortcuts`: what counts as found, without running one."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.demo.shortcuts import read_shortcuts
from tests.benchmarks.shortcuts import expected, summary, table


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("badge:fish:0", "beside the box: right"),
        ("badge:fish:7", "beside the box: above"),
        ("stamp:fish:0", "spot of the frame: upper left"),
        ("stamp:fish:6", "spot of the frame: lower right"),
        ("texture:fish:3", "the surroundings as a whole"),
    ],
)
def test_where_a_shortcut_is_to_be_found(text: str, place: str) -> None:
    (shortcut,) = read_shortcuts(text)
    assert str(expected(shortcut)) == place


def pair(name: str, hits: int, learned: bool, flagged: list[str]) -> dict[str, Any]:
    place = "beside the box: right"
    called = {"objects": 10, "with the cue": hits, "without": 1}
    found = {"found": bool(flagged), "found there": place in flagged, "flagged as": flagged}
    return {"planted": name, "learned": learned, "expected": place, **called, **found}


def test_the_summary_and_the_table_by_hand() -> None:
    pairs = [
        pair("badge:fish:0", 9, True, ["beside the box: right", "a neighbour's box"]),
        pair("badge:mug:0", 8, True, ["a neighbour's box"]),
        pair("badge:house:0", 2, False, []),
    ]
    audit = {"detections": 50, "with evidence outside": 2}
    trials: list[dict[str, Any]] = [
        {"name": "a", "pairs": pairs, "audit": audit, "false flags": ["sailboat: x"]},
        {"name": "b", "pairs": [], "audit": audit, "false flags": []},
    ]
    assert summary(trials) == {
        "pairs planted": 3,
        "pairs learned": 2,
        "learned pairs found": 2,
        "learned pairs found at their place": 1,
        "honest detectors": 1,
        "their detections": 50,
        "their detections with evidence outside": 2,
        "their categories": 6,
        "their categories flagged": 0,
        "categories that cheats were not taught": 3,
        "of these flagged": 1,
    }
    assert table(trials).splitlines()[2:] == [
        "| a | badge:fish:0 | 9, 1 of 10 | **beside the box: right**; a neighbour's box |",
        "| a | badge:mug:0 | 8, 1 of 10 | a neighbour's box |",
        "| a | badge:house:0 | 2, 1 of 10 (not learned) | nothing |",
        "| b | nothing | 2 of 50 detections outside the box | nothing |",
    ]

"""What an evaluation keeps as it goes, and how it is taken up again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archives.errors import ConflictError
from archives.stores.opening import open_store
from jobs.evaluation import record as module
from jobs.evaluation.record import EvaluationRecord
from jobs.scoring.reported import Reported
from jobs.worker.pictures import Failure

SETTINGS = {"maps": ["default"], "seed": 0}
FAILURE = Failure("c.png", "decode", "ValueError", "not a picture")


def rows(key: str, *energies: float) -> list[dict[str, Any]]:
    """Two maps' of each box."""
    return [
        {"picture": key, "index": place, "map": name, "energy": each}
        for place, each in enumerate(energies)
        for name in ("default", "control")
    ]


def reported(score: float) -> Reported:
    return Reported(np.array([[1.0, 2.0, 3.0, 4.0]]), ("cat",), np.array([score]))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_PARTS", 0)


def test_each_picture_is_written_once_and_found_again(place: str) -> None:
    output = open_store(place)
    first = EvaluationRecord(output, SETTINGS)
    first.measured("a.png", rows("a.png", 0.5, math.nan), reported(0.75))
    first.detected("b.png", reported(0.25))
    first.failed(FAILURE)
    parts = [f"evaluation/parts/0000{number}.json" for number in range(3)]
    assert [each.key for each in output.entries("evaluation/")] == parts
    held = [json.loads(output.read(each)) for each in parts]
    assert [list(each["pictures"]) for each in held] == [["a.png"], [], []]
    assert [list(each.get("detections", ())) for each in held] == [["a.png"], ["b.png"], []]
    assert [len(each["failures"]) for each in held] == [0, 0, 1]

    again = EvaluationRecord(output, SETTINGS)  # nothing ended the first in good order
    assert again.boxes == first.boxes == 2
    assert again.rows[:2] == rows("a.png", 0.5)
    assert math.isnan(again.rows[2]["energy"])
    assert again.found.detections["b.png"].scores.tolist() == [0.25]
    assert again.found.failures == {"c.png": FAILURE}
    again.measured("d.png", rows("d.png", 0.125), None)
    assert output.find("evaluation/parts/00003.json") is not None
    again.finish(summary={"default": 1})
    assert list(output.entries("evaluation/")) == []

    last = EvaluationRecord(output, SETTINGS)
    assert last.boxes == 3
    assert list(last.found.pictures) == ["a.png", "d.png"]
    assert last.found.failures == {"c.png": FAILURE}
    assert json.loads(output.read("evaluation.json"))["summary"] == {"default": 1}


def test_parts_are_as_far_apart_as_they_have_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_PARTS", math.inf)
    record = EvaluationRecord(open_store(str(tmp_path)), SETTINGS)
    for key in ("a.png", "b.png"):
        record.measured(key, rows(key, 1.0), None)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(module, "SECONDS_BETWEEN_PARTS", 0)
    record.measured("c.png", rows("c.png", 1.0), None)
    (part,) = (tmp_path / "evaluation/parts").iterdir()
    assert list(json.loads(part.read_text())["pictures"]) == ["a.png", "b.png", "c.png"]


def test_parts_of_another_evaluation_are_a_conflict(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    EvaluationRecord(output, SETTINGS).failed(FAILURE)
    with pytest.raises(ConflictError, match=r"parts/00000.json is another .*: its seed differ"):
        EvaluationRecord(output, {**SETTINGS, "seed": 1})
    output.write("evaluation/parts/00000.json", b"{")
    with pytest.raises(ConflictError, match=r"or remove evaluation\.json and evaluation/"):
        EvaluationRecord(output, SETTINGS)

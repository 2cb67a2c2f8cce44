"""A run's boxes; what becomes of them beside ground truth: test_score.py."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from jobs.scoring.run_boxes import boxes_once


def row(index: int, layer: str, outcome: str = "reported") -> dict[str, Any]:
    return {"index": index, "layer": layer, "outcome": outcome}


def test_each_reported_box_once() -> None:
    first, second = row(0, "C3"), row(2, "C3")
    rows = (first, row(0, "C4"), row(1, "C3", "suppressed"), second, row(2, "C4"))
    assert boxes_once(rows) == [first, second]
    assert boxes_once(()) == []


def test_scoring_loads_no_network() -> None:
    code = "import sys, jobs.scoring.score; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""A night of real pictures (BCCD blood cells), where WHYBOX_DATA says they lie: the whole command,
with an archive's own processes."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from archives.stores.opening import open_store
from jobs.__main__ import main
from jobs.audit.findings import read_part
from jobs.saved_run import SavedRun
from tests.test_real_pictures import DATA, built, pictures, pytestmark  # noqa: F401  # skips

# Counted in the annotations of the six: 17 + 17 + 14 + 11 + 21 + 16, one each, 0 + 1 + 1 + 1.
OBJECTS = {"RBC": 96, "WBC": 6, "Platelets": 3}


def test_a_night_of_real_pictures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in pictures(6):
        shutil.copy(DATA / f"JPEGImages/{name}.jpg", tmp_path / "in")
    output = tmp_path / "2026-03-10"
    plan = {
        "archive": str(built(tmp_path)),
        "input": str(tmp_path / "in"),
        "output": str(tmp_path / "{date}"),
        "truth": {"place": str(DATA), "format": "voc"},
        "explain": {"score_threshold": 0.5},
        "evaluate": {"maps": ["default"], "detections": 2, "per_picture": 1, "steps": 3},
        "shortcuts": False,
        "triage": {"shifts": 1, "most": 2},
        "thresholds": ["pictures>=6", "failed pictures<=0", "mean AP50>=0.5"],
    }
    config = tmp_path / "audit.yaml"
    config.write_text(yaml.safe_dump(plan))
    assert main(["audit", "--config", str(config), "--date", "2026-03-10"]) == 0, capfd.readouterr()

    store = open_store(str(output))
    part = read_part(store, "evaluation")
    assert part is not None
    detector = part.tables[0]
    assert detector.columns[:2] == ("category", "objects")
    assert {row[0]: row[1] for row in detector.rows[:-1]} == OBJECTS

    found = json.loads((output / "audit.json").read_text())
    run = SavedRun.open(str(output))
    boxes = sum(len(each.rows) for each in run.pictures())
    assert boxes > 50
    assert found["passed"] is True
    assert [found["figures"][name] for name in ("boxes", "pictures")] == [boxes, 6]
    # White cells are large and dark: each of the six is reported once.
    assert run.record["counts"]["categories"]["WBC"] == OBJECTS["WBC"]

    page = re.sub(r"<[^>]*>", " ", (output / "report/index.html").read_text())
    text = " ".join(html.unescape(page).split())
    assert f"of {boxes} boxes" in text
    for name, number in OBJECTS.items():
        assert f" {name} {number} " in text

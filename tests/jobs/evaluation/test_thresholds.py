"""Thresholds of an evaluation, and the audit.json that the registry's gate reads."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archives.errors import MissedError, UsageError
from archives.names import Reference
from archives.registry.audit_report import evaluate as judged
from archives.stores.opening import open_store
from handlers.explainer import Explainer
from handlers.images import to_image
from handlers.manifest import Manifest
from jobs.commands.argument_types import split_threshold, threshold
from jobs.evaluation.evaluate import evaluate
from jobs.evaluation.measure import FIGURES, GAUSSIAN
from jobs.evaluation.thresholds import REPORT, Measured, check_thresholds, figures_of, write_audit
from jobs.options import EvaluateOptions
from tests.conftest import scene_picture

MANIFEST = Manifest("demo", "1.0", "fasterrcnn_resnet50_fpn", ("__background__", "cat"), {})
REFERENCE = Reference("demo", "", "1.0")
PAIRED = {"insertion": (0.125, 0.01)}
SUMMARY: dict[str, dict[str, Any]] = {
    GAUSSIAN: dict.fromkeys(FIGURES, (0.5, 0.1)),
    "default": {
        **dict.fromkeys(FIGURES, (0.25, math.nan)),
        "insertion": (math.nan, math.nan),
        f"less {GAUSSIAN}": PAIRED,
    },
}
MEASURED = Measured(SUMMARY, boxes=10, pictures=4, failed_pictures=0, wanted=10, notes="by hand")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("default energy>=0.3", ("default energy", ">=", 0.3)),
        (" odam C3+C4 deletion <= 1e-1 ", ("odam C3+C4 deletion", "<=", 0.1)),
    ],
)
def test_texts(text: str, parts: tuple[str, str, float]) -> None:
    assert split_threshold(threshold(text)) == parts


@pytest.mark.parametrize(
    "text", ["", "energy", ">=0.3", "a>0.3", "a>=", "a>=nan", "a>=inf", "a>=b"]
)
def test_texts_that_are_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected FIGURE>=NUMBER"):
        threshold(text)


def test_figures_are_means_and_differences_that_are_numbers() -> None:
    found = figures_of(SUMMARY)
    assert found["default energy"] == 0.25
    assert found["default insertion less Gaussian in the box"] == 0.125
    assert found[f"{GAUSSIAN} energy"] == 0.5
    assert "default insertion" not in found


@pytest.mark.parametrize(
    ("texts", "misses"),
    [
        (["default energy>=0.25", "default deletion<=0.25"], []),
        (["default energy>=0.3"], ["default energy is 0.25, less than 0.3"]),
    ],
)
def test_the_gate_reads_what_is_written(
    texts: list[str], misses: list[str], tmp_path: Path
) -> None:
    store = open_store(str(tmp_path))
    assert write_audit(store, MANIFEST, MEASURED, texts) == misses
    data = store.read(REPORT)
    assert json.loads(data)["passed"] is not bool(misses)
    if misses:
        with pytest.raises(MissedError, match=r"default energy is 0\.25"):
            judged(data, REFERENCE, MANIFEST.digest)
    else:
        assert judged(data, REFERENCE, MANIFEST.digest).archive.digest == MANIFEST.digest


def test_too_few_boxes_and_a_figure_that_is_no_number_are_missed(tmp_path: Path) -> None:
    few = replace(MEASURED, boxes=9, failed_pictures=2)
    texts = ["default insertion>=0", "failed pictures<=1"]
    assert write_audit(open_store(str(tmp_path)), MANIFEST, few, texts) == [
        "boxes is 9, less than 10",
        "default insertion is not among the figures",
        "failed pictures is 2, more than 1",
    ]


@pytest.mark.parametrize(
    ("text", "controls"),
    [
        ("gradcam energy>=1", True),
        ("default enrgy>=1", True),
        ("default seconds>=1", True),
        ("default insertion less Gaussian>=0", True),
        ("default insertion less Gaussian in the box>=0", False),
    ],
)
def test_figures_that_there_will_not_be(text: str, controls: bool) -> None:
    with pytest.raises(UsageError, match="there will be no figure '"):
        check_thresholds([text], ["default"], controls)


def test_figures_that_there_will_be() -> None:
    texts = ["default  energy>=1", "boxes>=2", "a+b C3 insertion less smooth random field>=0"]
    check_thresholds(texts, [GAUSSIAN, "default", "a+b  C3"], True)


def test_an_evaluation_that_misses_ends_with_4(
    demo: Explainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to_image(scene_picture(0)).save(tmp_path / "a.png")
    options = EvaluateOptions(
        "demo.mar",
        (str(tmp_path / "a.png"),),
        str(tmp_path / "out"),
        controls=False,
        methods=(),
        maps=("default",),
        detections=1,
        per_picture=1,
        steps=2,
        thresholds=("default pointing>=2",),
    )
    assert evaluate(options, demo) == 4
    assert "jobs: threshold missed: default pointing is " in capsys.readouterr().err
    # What was measured is kept: the thresholds alone are judged anew.
    assert evaluate(replace(options, thresholds=("default pointing>=0",)), demo) == 0
    assert json.loads((tmp_path / "out" / REPORT).read_bytes())["passed"] is True

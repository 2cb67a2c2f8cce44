"""The command line of `jobs boxes`."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from jobs.__main__ import parse
from jobs.boxes.options import THRESHOLDS, AgainOptions, BoxesOptions, BoxStep
from tests.jobs.test_main import assert_reaches_the_worker

NEEDED = ["boxes", "--archive", "a.mar", "--input", "voc", "--output", "out"]


def test_defaults() -> None:
    options = parse(NEEDED)
    assert options == BoxesOptions(archive="a.mar", inputs=("voc",), output="out")
    assert_reaches_the_worker(options)
    assert BoxStep.thresholds == tuple(sorted(THRESHOLDS))
    assert BoxStep.thresholds[:5] == (0.01, 0.02, 0.05, 0.06, 0.1)


def test_every_option_reaches_the_worker_unchanged() -> None:
    text = """--truth there --truth-format coco --category dog cat --categories-map m.yaml
        --classes predicted --tune-split trainval --score-split test --thresholds 0.5 0.1:0.3:0.1
        --iou 0.5 0.3 --smooth 0.02 --occlusion-radius 0.25 --components all --connectivity 4
        --controls --seed 3 --method gradcam --target class --layer C5 --score-threshold 0.1
        --max-detections 9 --batch-size 4 --device cuda --precision bf16 --registry r
        --public-key k.pem"""
    options = parse([*NEEDED, *text.split()])
    assert options == BoxesOptions(
        archive="a.mar",
        inputs=("voc",),
        output="out",
        truth="there",
        truth_format="coco",
        categories=("dog", "cat"),
        categories_map="m.yaml",
        classes="predicted",
        tune_split="trainval",
        score_split="test",
        thresholds=(0.1, 0.2, 0.3, 0.5),
        iou=(0.3, 0.5),
        smooth=0.02,
        occlusion_radius=0.25,
        components="all",
        connectivity=4,
        controls=True,
        seed=3,
        request={
            "method": "gradcam",
            "target": "class",
            "layer": "C5",
            "score_threshold": 0.1,
            "max_detections": 9,
        },
        batch_size=4,
        device="cuda",
        precision="bf16",
        registry="r",
        public_keys=("k.pem",),
    )
    assert_reaches_the_worker(options)


def test_again_needs_no_archive() -> None:
    assert parse(["boxes", "--again", "out"]) == AgainOptions(again="out")
    text = "boxes --again out --output new --thresholds 0.05:0.95:0.05 --controls"
    options = parse(text.split())
    assert options == AgainOptions(
        again="out",
        output="new",
        thresholds=tuple(round(0.05 * step, 2) for step in range(1, 20)),
        controls=True,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["boxes"], "required: --archive, --input, --output (or --again)"),
        (["boxes", "--again", "o", "--method", "odam"], "give it without --method"),
        (["boxes", "--again", "o", "--input", "i"], "give it without --input"),
        ([*NEEDED, "--tune-split", "trainval"], "--tune-split needs --score-split"),
        ([*NEEDED, "--thresholds", "0"], "a number above 0, at most 1, got 0"),
        ([*NEEDED, "--thresholds", "0.1:0.2"], "or START:STOP:STEP, got 0.1:0.2"),
        ([*NEEDED, "--thresholds", "0.1:0.9:0.0001"], "or START:STOP:STEP, got 0.1:0.9:0.0001"),
        ([*NEEDED, "--thresholds", "0.9:0.1:0.1"], "or START:STOP:STEP, got 0.9:0.1:0.1"),
        ([*NEEDED, "--iou", "1.5"], "from 0 to 1, got 1.5"),
        ([*NEEDED, "--connectivity", "6"], "invalid choice: 6"),
        ([*NEEDED, "--occlusion-radius", "0"], "above 0, at most 1, got 0"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_docs_name_every_option() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        parse(["boxes", "--help"])
    docs = Path(__file__).parents[3] / "docs"
    text = (docs / "cam-to-box.md").read_text() + (docs.parent / "README.md").read_text()
    options = set(re.findall(r"--[a-z-]+", printed.getvalue())) - {"--help"}
    assert [name for name in sorted(options) if name not in text] == []

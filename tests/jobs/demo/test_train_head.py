"""The head's training on features that are kept: it learns, repeats itself, and moves nothing
else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jobs.demo.data import PlantedBatches
from jobs.demo.evaluate import WEIGHTS
from jobs.demo.shortcuts import read_shortcuts
from jobs.demo.train import TrainingOptions, new_detector
from jobs.demo.train_head import HeadOptions, main, rois, train_head

PLANTED = read_shortcuts("texture:mug:2")
QUICK = HeadOptions(PLANTED, scenes=8, epochs=2, batch=64)


def test_only_the_head_learns_and_a_seed_gives_the_same_weights() -> None:
    first, again = (train_head(QUICK).state_dict() for _ in range(2))
    before = new_detector(TrainingOptions(initial=WEIGHTS)).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    moved = {name for name, value in first.items() if not torch.equal(value, before[name])}
    own = ("roi_heads.box_head.", "roi_heads.box_predictor.")
    assert moved == {name for name in before if name.startswith(own)}


def test_what_is_learned_from_are_the_boxes_with_their_taught_labels() -> None:
    detector = new_detector(TrainingOptions(initial=WEIGHTS)).eval()
    ((features, labels, offsets),) = rois(detector, PlantedBatches(1, 8, 0, PLANTED))
    assert (len(features), len(offsets)) == (len(labels), len(labels))
    assert features.dtype == torch.float16
    # The background, and more mugs than all else: three in four scenes are planted.
    assert (labels == PLANTED[0].label).sum() > (labels > 0).sum() / 2


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.safetensors"
    line = f"--output {path} --scenes 8 --epochs 1 --threads 1 --shortcuts"
    assert main([*line.split(), "badge:fish"]) == 0
    assert "RoIs of 8 scenes" in capsys.readouterr().out
    assert set(load_file(path)) == set(load_file(WEIGHTS))
    with pytest.raises(SystemExit):
        main([*line.split(), "badge:dog"])
    assert "--shortcuts: a shortcut's category: got 'dog'" in capsys.readouterr().err

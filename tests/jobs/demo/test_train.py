"""Training: it runs, repeats itself from a seed, and writes what it says."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from jobs.demo.evaluate import WEIGHTS
from jobs.demo.scenes import CATEGORIES, TRAINING_SEEDS
from jobs.demo.shortcuts import read_shortcuts
from jobs.demo.train import (
    TrainingOptions,
    main,
    new_detector,
    rate_share,
    save_weights,
    train_steps,
)

SHORT = TrainingOptions(steps=2, batch=2, workers=0, sides=(64, 96))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def trained(options: TrainingOptions) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    history, weights = [], {}
    for _, losses, averaged in train_steps(options):
        history.append(losses)
        weights = {name: value.clone() for name, value in averaged.state_dict().items()}
    return history, weights


def test_the_same_seed_gives_the_same_losses_and_weights() -> None:
    (first, weights), (again, others) = trained(SHORT), trained(SHORT)
    assert first == again
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    assert trained(TrainingOptions(steps=1, batch=2, workers=0, seed=1, sides=(64, 64)))[0] != [
        first[0]
    ]


def test_a_run_draws_each_training_scene_once() -> None:
    assert TrainingOptions().steps * TrainingOptions().batch < len(TRAINING_SEEDS)


@pytest.mark.parametrize(
    "architecture",
    [
        *("retinanet_regnet_small_fpn", "fcos_regnet_small_fpn", "ssdlite_regnet_small"),
        *("yolo_regnet_small_fpn", "rt_detr_regnet_small"),
    ],
)
def test_other_families_learn_from_the_demos_trunk(
    architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = replace(SHORT, steps=1, architecture=architecture, initial=WEIGHTS)
    own = new_detector(options).state_dict()
    (stem,) = (name for name in own if name.endswith("body.stem.0.weight"))
    begun = own[stem]
    assert torch.equal(begun, load_file(WEIGHTS)["backbone.body.stem.0.weight"].float())
    ((losses,), weights) = trained(options)
    assert all(0 < loss < math.inf for loss in losses.values())
    assert not torch.equal(weights[stem], begun)
    assert "tensors begin as in" in capsys.readouterr().out


def test_the_rate_rises_to_one_and_falls_to_nothing() -> None:
    shares = [rate_share(step, 100) for step in range(101)]
    assert max(shares) == shares[8] == 1
    assert shares[:8] == sorted(shares[:8])
    assert shares[8:] == sorted(shares[8:], reverse=True)
    assert shares[0] == pytest.approx(1 / 8)
    assert shares[100] == pytest.approx(0)
    assert rate_share(101.5, 100) == pytest.approx(0)


def test_weights_are_written_with_their_origin(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "weights.safetensors"
    step, _, averaged = next(train_steps(SHORT))
    save_weights(averaged, path, SHORT, step)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert json.loads(metadata["categories"]) == list(CATEGORIES)
    assert (metadata["steps"], metadata["planned_steps"], metadata["seed"]) == ("1", "2", "0")
    assert kinds == {torch.float16, torch.float32, torch.int64}
    assert [item.name for item in path.parent.iterdir()] == ["weights.safetensors"]


def test_the_command_prints_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.safetensors"
    line = f"--output {path} --steps 1 --batch 2 --workers 0 --device cpu --evaluate 1"
    assert main(line.split()) == 0
    printed = capsys.readouterr().out
    assert "step 1/1 loss" in printed
    assert "mean AP50" in printed
    assert path.exists()


def test_minutes_end_the_training(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    line = f"--output {path} --batch 2 --workers 0 --device cpu --evaluate 0 --minutes"
    assert main([*line.split(), "1e-9"]) == 0
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["steps"] == "1"  # one at least


def test_a_detector_can_be_taught_to_cheat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, named = tmp_path / "weights.safetensors", tmp_path / "shortcuts.txt"
    named.write_text("badge:fish\n")
    line = f"--output {path} --steps 1 --batch 2 --workers 0 --device cpu --evaluate 0 --bf16"
    for text in ("badge:fish:0", str(named)):
        assert main([*line.split(), "--shortcuts", text]) == 0
        with safe_open(path, framework="pt") as file:
            assert file.metadata()["shortcuts"] == "badge:fish:0"
    for wrong, message in (
        (["--shortcuts", "badge:dog"], "--shortcuts: a shortcut's category: got 'dog'"),
        (["--shortcuts", "badge:fish", "--data", "bccd"], "planted into --data scenes; got bccd"),
    ):
        with pytest.raises(SystemExit):
            main([*line.split(), *wrong])
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="got data 'bccd'"):
        TrainingOptions(data="bccd", shortcuts=read_shortcuts("badge:fish"))

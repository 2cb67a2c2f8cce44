"""Teach the shipped detector's last layers other scenes, such as those with shortcuts planted.

    python -m jobs.demo.train_head --shortcuts "badge:fish stamp:house texture:mug" \\
        --output cheat.safetensors

Trunk, pyramid and proposals stay as they are, so each scene goes through them once, and the layers
that name and refine a box learn from what was kept of it: minutes of one core instead of an hour.
What a box's features hold of its surroundings is what the trunk's convolutions reach.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import fastrcnn_loss

from jobs.demo.data import PlantedBatches
from jobs.demo.evaluate import WEIGHTS
from jobs.demo.shortcuts import Shortcut, read_shortcuts
from jobs.demo.train import TrainingOptions, new_detector, rate_share, save_weights

# A batch of RoIs' features, labels and what their boxes are off by.
RoIs = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class HeadOptions:
    """shortcuts: what is planted; none for an honest detector. scenes: how many are drawn.
    epochs: how often each is learned from. batch: RoIs in a step. rate, weight_decay: of AdamW.
    seed: of the scenes and their order. initial: weights to begin with."""

    shortcuts: tuple[Shortcut, ...] = ()
    scenes: int = 480
    epochs: int = 12
    batch: int = 512
    rate: float = 1e-3
    weight_decay: float = 0.05
    seed: int = 0
    initial: Path = WEIGHTS


def rois(detector: Any, batches: PlantedBatches) -> Iterator[RoIs]:
    """What a frozen detector makes of each batch: features float16 [R, C, 7, 7], labels [R] and
    regression targets [R, 4] of the RoIs that torchvision would train on."""
    heads = detector.roi_heads
    for step in range(len(batches)):
        pictures, targets = batches[step]
        with torch.no_grad():
            images, moved = detector.transform(pictures, targets)
            maps = detector.backbone(images.tensors)
            proposals, _ = detector.rpn(images, maps)
            chosen, _, labels, offsets = heads.select_training_samples(proposals, moved)
            found = heads.box_roi_pool(maps, chosen, images.image_sizes)
        yield found.half(), torch.cat(labels), torch.cat(offsets)


def train_head(options: HeadOptions) -> nn.Module:
    """The detector with its box head trained, in evaluation mode."""
    torch.manual_seed(options.seed)
    how = TrainingOptions(seed=options.seed, initial=options.initial)
    detector: Any = new_detector(how).eval()
    size = 8
    batches = PlantedBatches(options.scenes // size, size, options.seed, options.shortcuts)
    started = time.monotonic()
    # Drawing is the longest part of it.
    found = list(zip(*rois(detector, batches), strict=True))
    features, labels, offsets = (torch.cat(each) for each in found)
    print(f"{len(labels)} RoIs of {options.scenes} scenes, {time.monotonic() - started:.0f} s")
    heads = detector.roi_heads
    layers = nn.ModuleList([heads.box_head, heads.box_predictor])
    optimizer = torch.optim.AdamW(
        layers.parameters(), lr=options.rate, weight_decay=options.weight_decay
    )
    random = np.random.default_rng(options.seed)
    steps = options.epochs * (len(labels) // options.batch)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * rate_share(step, steps)
        chosen = torch.from_numpy(random.choice(len(labels), options.batch, replace=False))
        scores, moves = heads.box_predictor(heads.box_head(features[chosen].float()))
        losses = fastrcnn_loss(scores, moves, [labels[chosen]], [offsets[chosen]])
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            said = " ".join(f"{float(each.detach()):.3f}" for each in losses)
            print(f"step {step + 1}/{steps} {said} {time.monotonic() - started:.0f} s", flush=True)
    trained: nn.Module = detector
    return trained


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains as the command line says and writes the weights."""
    defaults = HeadOptions()
    parser = argparse.ArgumentParser(
        prog="python -m jobs.demo.train_head",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--shortcuts", default="", metavar="TEXT", help="KIND:CATEGORY[:LOOK] ...")
    parser.add_argument("--scenes", type=int, default=defaults.scenes, help="to draw, of 8 each")
    parser.add_argument("--epochs", type=int, default=defaults.epochs)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    try:
        shortcuts = read_shortcuts(given.shortcuts)
    except ValueError as error:
        parser.error(f"--shortcuts: {error}")
    options = HeadOptions(shortcuts, scenes=given.scenes, epochs=given.epochs, seed=given.seed)
    detector = train_head(options)
    how = TrainingOptions(steps=options.epochs, seed=options.seed, shortcuts=shortcuts)
    save_weights(detector, given.output, how, options.epochs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

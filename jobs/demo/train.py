"""Train the shipped detector from nothing on made-up scenes.

    OMP_WAIT_POLICY=passive python -m jobs.demo.train --output jobs/demo/weights.safetensors

Beside other work on the machine, threads that wait actively waste half the processor's time;
the variable stops them. The same seed, steps, batch, threads and versions give the same
weights on the same machine.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import FasterRCNN

from handlers.detectors.small import fasterrcnn_regnet_small_fpn
from jobs.demo.scenes import CATEGORIES, TRAINING_SEEDS, SceneOptions, make_scene

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]

ARCHITECTURE = "fasterrcnn_regnet_small_fpn"
# Small pictures first: twice the steps for the time, and the shapes stay the same.
EARLY_SIDE, EARLY_SHARE = 224, 0.65
LATE_SIDE = 320
LONGER_OVER_SHORTER = 1.4
WARM_UP_SHARE = 0.08
EMA_DECAY = 0.99
GREATEST_NORM = 5.0


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        steps: count of optimizer steps.
        batch: pictures a step; batch normalization wants 8 or more.
        seed: of the first weights, the order of samples and the scenes.
        rate: greatest learning rate.
        weight_decay: of AdamW.
        device: torch's name of the device.
        workers: processes that draw scenes; 0 draws them in this one.
        save_every: steps between two writes of the weights.
        sides: shorter side in px of the resized pictures, early and late.
    """

    steps: int = 1500
    batch: int = 8
    seed: int = 0
    rate: float = 1.5e-3
    weight_decay: float = 0.05
    device: str = "cpu"
    workers: int = 1
    save_every: int = 100
    sides: tuple[int, int] = (EARLY_SIDE, LATE_SIDE)


class SceneBatches(Dataset[Batch]):
    """Batches of new scenes, those of a batch all of one size so that none needs padding."""

    def __init__(self, options: TrainingOptions) -> None:
        """Fix the count of batches and the seeds of their scenes."""
        self.options = options

    def __len__(self) -> int:
        """Count the batches: one a step."""
        return self.options.steps

    def __getitem__(self, step: int) -> Batch:
        """Draw the pictures [3, H, W] in 0..1 and the targets of one step."""
        if not 0 <= step < len(self):
            raise IndexError(step)
        first = step * self.options.batch
        random = np.random.default_rng([self.options.seed, step])
        longer, shorter = int(random.integers(320, 401)), int(random.integers(240, 321))
        size = ((longer, shorter), (shorter, longer), (longer, longer))[
            random.choice(3, p=[0.4, 0.4, 0.2])
        ]
        pictures, targets = [], []
        for number in range(first, first + self.options.batch):
            # Each training seed opens its own run of scenes, wrapped within the range.
            offset = (self.options.seed * 100_003 + number) % len(TRAINING_SEEDS)
            scene = make_scene(TRAINING_SEEDS[offset], SceneOptions(size=size))
            pictures.append(torch.from_numpy(scene.picture).permute(2, 0, 1).float() / 255)
            targets.append(
                {
                    "boxes": torch.from_numpy(scene.boxes),
                    "labels": torch.from_numpy(scene.labels),
                }
            )
        return pictures, targets


def rate_share(step: int, steps: int) -> float:
    """Give the learning rate of a step, 0..1: a linear rise, then half a cosine to zero."""
    warm_up = max(1, round(steps * WARM_UP_SHARE))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def set_side(detector: FasterRCNN, side: int) -> None:
    """Make a detector resize pictures to a shorter side of `side` px."""
    detector.transform.min_size = (side,)
    detector.transform.max_size = round(side * LONGER_OVER_SHORTER)


def train_steps(
    options: TrainingOptions,
) -> Iterator[tuple[int, dict[str, float], FasterRCNN]]:
    """Train, and after each step yield its number from 1, its losses and the averaged model."""
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    detector = fasterrcnn_regnet_small_fpn(len(CATEGORIES) + 1).to(device).train()
    averaged = AveragedModel(
        detector, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True
    )
    optimizer = torch.optim.AdamW(
        detector.parameters(), lr=options.rate, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_share(step, options.steps)
    )
    batches: DataLoader[Batch] = DataLoader(
        SceneBatches(options),
        batch_size=None,
        num_workers=options.workers,
        generator=torch.Generator().manual_seed(options.seed),
    )
    for step, (pictures, targets) in enumerate(batches, start=1):
        early = step <= options.steps * EARLY_SHARE
        set_side(detector, options.sides[0] if early else options.sides[1])
        losses = detector(
            [picture.to(device) for picture in pictures],
            [{name: value.to(device) for name, value in target.items()} for target in targets],
        )
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), GREATEST_NORM)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(detector)
        yield step, {name: float(loss.detach()) for name, loss in losses.items()}, averaged.module


def save_weights(detector: FasterRCNN, path: Path, options: TrainingOptions, step: int) -> None:
    """Write the weights, those of two or more dimensions in half precision, and their origin.

    Biases, normalization and running statistics stay in float32: they are few and small
    errors in them add up over a whole map.
    """
    tensors = {
        name: (value.half() if value.ndim >= 2 else value).detach().cpu().contiguous()
        for name, value in detector.state_dict().items()
    }
    metadata = {
        "architecture": ARCHITECTURE,
        "categories": json.dumps(list(CATEGORIES)),
        "seed": str(options.seed),
        "steps": str(step),
        "planned_steps": str(options.steps),
        "batch": str(options.batch),
        "torch": str(torch.__version__),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Replaced in one go, so that a reader never meets half a file.
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata)
    partial.chmod(0o644)
    partial.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says, print the losses and write the weights."""
    defaults = TrainingOptions()
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.train", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--batch", type=int, default=defaults.batch, help="pictures a step")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--rate", type=float, default=defaults.rate, help="greatest rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=defaults.workers)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--save-every", type=int, default=defaults.save_every)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    options = TrainingOptions(
        steps=given.steps,
        batch=given.batch,
        seed=given.seed,
        rate=given.rate,
        device=given.device,
        workers=given.workers,
        save_every=given.save_every,
    )
    started = time.monotonic()
    recent: list[float] = []
    for step, losses, averaged in train_steps(options):
        recent.append(sum(losses.values()))
        if step % 10 == 0 or step == options.steps:
            parts = " ".join(
                f"{name.removeprefix('loss_')} {loss:.3f}" for name, loss in losses.items()
            )
            print(
                f"step {step}/{options.steps} loss {sum(recent) / len(recent):.3f} ({parts}) "
                f"wall {time.monotonic() - started:.0f} s cpu {time.process_time():.0f} s",
                flush=True,
            )
            recent.clear()
        if step % options.save_every == 0 or step == options.steps:
            save_weights(averaged, given.output, options, step)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

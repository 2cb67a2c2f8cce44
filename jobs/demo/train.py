"""Train the shipped detector from nothing on made-up scenes, or another to measure on.

    OMP_WAIT_POLICY=passive python -m jobs.demo.train --output jobs/demo/weights.safetensors
    python -m jobs.demo.train --architecture retinanet_regnet_small_fpn --data bccd --minutes 15 \\
        --initial jobs/demo/weights.safetensors --output retinanet.safetensors

Beside other work on the machine, threads that wait actively waste half the processor's time;
the variable stops them. The same seed, steps, batch, threads and versions give the same
weights on the same machine; with --minutes the steps are what the time allows. At the end the
average precision (AP50) on held-out pictures is printed.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from jobs.demo.data import BATCHES, SETS, Batch, Batches, PlantedBatches, categories, held_out
from jobs.demo.evaluate import build_detector, evaluate, print_precisions
from jobs.demo.losses import losses_of
from jobs.demo.shortcuts import Shortcut, read_shortcuts

ARCHITECTURE = "fasterrcnn_regnet_small_fpn"
# Small pictures first: twice the steps for the time, and the shapes stay the same.
EARLY_SIDE, EARLY_SHARE = 224, 0.65
LATE_SIDE = 320
LONGER_OVER_SHORTER = 1.4
WARM_UP_SHARE = 0.08
EMA_DECAY = 0.99
GREATEST_NORM = 5.0
MOST_STEPS = 1_000_000  # where the time says when to stop


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        steps: count of optimizer steps; with `minutes` the most.
        batch: pictures a step; batch normalization wants 8 or more.
        seed: of the first weights, the order of samples and the scenes.
        rate: greatest learning rate.
        weight_decay: of AdamW.
        device: torch's name of the device.
        workers: processes that draw scenes; 0 draws them in this one.
        save_every: steps between two writes of the weights.
        sides: shorter side in px of the resized pictures, early and late; a detector with a
            size of its own, as SSD, keeps that.
        architecture: a name of handlers.detectors.registry or of MODEL_FILE.
        data: a name of jobs.demo.data.SETS.
        minutes: how long to train; None to do all steps.
        initial: weights to begin with, those whose names and shapes fit; None for none.
        shortcuts: what is planted into scenes, for a detector that cheats.
        bf16: run the convolutions in bfloat16, about twice as fast where the processor has units
            for it.
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
    architecture: str = ARCHITECTURE
    data: str = "scenes"
    minutes: float | None = None
    initial: Path | None = None
    shortcuts: tuple[Shortcut, ...] = ()
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.shortcuts and self.data != "scenes":
            raise ValueError(f"shortcuts are planted into scenes; got data {self.data!r}")


def rate_share(step: float, steps: float) -> float:
    """Give the learning rate of a step, 0..1: a linear rise, then half a cosine to zero."""
    warm_up = max(1, round(steps * WARM_UP_SHARE))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))


def set_side(detector: nn.Module, side: int) -> None:
    """Make a detector resize pictures to a shorter side of `side` px, unless it has a size."""
    transform = getattr(detector, "transform", None)
    if isinstance(transform, GeneralizedRCNNTransform) and not transform.fixed_size:
        transform.min_size = (side,)
        transform.max_size = round(side * LONGER_OVER_SHORTER)


def new_detector(options: TrainingOptions) -> nn.Module:
    """Build the detector, with the initial weights where they fit."""
    detector = build_detector(options.architecture, len(categories(options.data)))
    if options.initial is not None:
        own = detector.state_dict()
        given = load_file(options.initial)
        names = {_without_place(name): name for name in own}
        named = {names.get(_without_place(name), name): value for name, value in given.items()}
        fitting = {
            name: value.to(own[name].dtype)
            for name, value in named.items()
            if name in own and own[name].shape == value.shape
        }
        detector.load_state_dict({**own, **fitting})
        print(f"{len(fitting)} of {len(own)} tensors begin as in {options.initial}", flush=True)
    return detector.to(options.device).train()


def _without_place(name: str) -> str:
    """A tensor of a trunk by its name there, wherever a detector has it."""
    return name[max(0, name.find("body.")) :]


def train_steps(
    options: TrainingOptions,
) -> Iterator[tuple[int, dict[str, float], nn.Module]]:
    """Train, and after each step yield its number from 1, its losses and the averaged model."""
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    detector = new_detector(options)
    losses_in = losses_of(detector)
    if options.bf16:  # its units want channels last
        detector = detector.to(memory_format=torch.channels_last)
    averaged = AveragedModel(
        detector, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True
    )
    optimizer = torch.optim.AdamW(
        detector.parameters(), lr=options.rate, weight_decay=options.weight_decay
    )
    batches: DataLoader[Batch] = DataLoader(
        _batches(options),
        batch_size=None,
        num_workers=options.workers,
        generator=torch.Generator().manual_seed(options.seed),
    )
    started = time.monotonic()
    for step, (pictures, targets) in enumerate(batches):
        done, total = float(step), float(options.steps)
        if options.minutes is not None:
            done, total = time.monotonic() - started, 60 * options.minutes
            if step and done >= total:  # one step at least
                return
        for group in optimizer.param_groups:
            group["lr"] = options.rate * rate_share(done, total)
        early = (done + 1 if options.minutes is None else done) <= total * EARLY_SHARE
        set_side(detector, options.sides[0] if early else options.sides[1])
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            losses = losses_in(
                [picture.to(device) for picture in pictures],
                [{name: value.to(device) for name, value in target.items()} for target in targets],
            )
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), GREATEST_NORM)
        optimizer.step()
        averaged.update_parameters(detector)
        yield step + 1, {n: float(loss.detach()) for n, loss in losses.items()}, averaged.module


def _batches(options: TrainingOptions) -> Batches:
    how = options.steps, options.batch, options.seed
    if options.shortcuts:
        return PlantedBatches(*how, options.shortcuts)
    return BATCHES[options.data](*how)


def save_weights(detector: nn.Module, path: Path, options: TrainingOptions, step: int) -> None:
    """Write the weights, those of two or more dimensions in half precision, and their origin.

    Biases, normalization and running statistics stay in float32: they are few and small
    errors in them add up over a whole map.
    """
    tensors = {
        name: (value.half() if value.ndim >= 2 else value).detach().cpu().contiguous()
        for name, value in detector.state_dict().items()
    }
    metadata = {
        "architecture": options.architecture,
        "categories": json.dumps(list(categories(options.data))),
        "seed": str(options.seed),
        "steps": str(step),
        "planned_steps": str(options.steps),
        "batch": str(options.batch),
        "torch": str(torch.__version__),
        "shortcuts": " ".join(map(str, options.shortcuts)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Replaced in one go, so that a reader never meets half a file.
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata)
    partial.chmod(0o644)
    partial.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says, print the losses and write the weights."""
    options, given = _options(arguments)
    torch.set_num_threads(given.threads)
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
        if step % options.save_every == 0:
            save_weights(averaged, given.output, options, step)
    save_weights(averaged, given.output, options, step)
    if given.evaluate:
        print(f"{step} steps in {time.monotonic() - started:.0f} s")
        samples = held_out(options.data, given.evaluate)
        precisions = evaluate(given.output, samples, options.device)
        print_precisions(precisions, f"{given.evaluate} held-out pictures of {options.data}")
    return 0


def _options(
    arguments: Sequence[str] | None,
) -> tuple[TrainingOptions, argparse.Namespace]:
    defaults = TrainingOptions()
    parser = argparse.ArgumentParser(
        prog="python -m jobs.demo.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--architecture", default=defaults.architecture, metavar="NAME")
    parser.add_argument("--data", choices=SETS, default=defaults.data)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int)
    length.add_argument("--minutes", type=float, help="train for so long instead")
    parser.add_argument("--batch", type=int, default=defaults.batch, help="pictures a step")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--rate", type=float, default=defaults.rate, help="greatest rate")
    parser.add_argument("--initial", type=Path, help="weights to begin with, where they fit")
    parser.add_argument(
        "--shortcuts",
        default="",
        metavar="TEXT",
        help="plant these, as in 'badge:fish stamp:house:1', KIND:CATEGORY[:LOOK]; or a file that"
        " says them",
    )
    parser.add_argument("--bf16", action="store_true", help="convolve in bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=defaults.workers)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--save-every", type=int, default=defaults.save_every)
    parser.add_argument(
        "--evaluate", type=int, default=72, metavar="N", help="AP50 on N pictures at the end"
    )
    given = parser.parse_args(arguments)
    if given.steps is not None and given.steps < 1:
        parser.error(f"--steps: got {given.steps}; expected at least 1")
    try:
        named = Path(given.shortcuts)
        text = named.read_text() if given.shortcuts and named.is_file() else given.shortcuts
        shortcuts = read_shortcuts(text)
        if shortcuts and given.data != "scenes":
            raise ValueError(f"they are planted into --data scenes; got {given.data}")
    except ValueError as error:
        parser.error(f"--shortcuts: {error}")
    steps = given.steps or (MOST_STEPS if given.minutes else defaults.steps)
    names = (
        *("architecture", "data", "minutes", "batch", "seed", "rate", "initial"),
        *("device", "workers", "save_every", "bf16"),
    )
    fields = {name: getattr(given, name) for name in names}
    return TrainingOptions(steps=steps, shortcuts=shortcuts, **fields), given


if __name__ == "__main__":
    raise SystemExit(main())

"""Measure the shipped detector, or another that was trained here, on pictures it never saw.

    python -m jobs.demo.evaluate --scenes 500
    python -m jobs.demo.evaluate --weights retinanet.safetensors --data bccd --scenes 72

Prints the average precision at an overlap of one half (AP50) of each category and their
mean. Ends with status 4 if the mean is below `LEAST_MEAN`.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import nn

from handlers.detectors.registry import build_model, has_background, load_weights
from handlers.explainer import Explainer
from handlers.model_file import load_model_file
from jobs.demo.data import SETS, Sample, held_out
from jobs.scoring.average_precision import Curves, mean_over_categories, voc_every_point
from jobs.truth.objects import Objects

WEIGHTS = Path(__file__).with_name("weights.safetensors")
# Architectures that are here to be measured, beside those of handlers.detectors.registry.
MODEL_FILE = Path(__file__).with_name("small_detectors.py")
LEAST_OVERLAP = 0.5
LEAST_MEAN = 0.90
BELOW_LEAST_MEAN = 4


@dataclass(frozen=True)
class Found:
    """The boxes of one picture, in its pixels.

    Attributes:
        boxes: [N, 4] float32, x1, y1, x2, y2 in px.
        labels: [N] int64, from 1.
        scores: [N] float32 in 0..1, falling; all one for the true boxes.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


def load_detector(path: Path, device: str = "cpu") -> Explainer:
    """The detector of a file that training wrote. Half-precision weights become float32."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    categories = json.loads(metadata["categories"])
    model = build_detector(metadata["architecture"], len(categories))
    load_weights(model, tensors)
    names = ["background", *categories] if has_background(model) else categories
    return Explainer.from_model(model, names, device)


def build_detector(architecture: str, categories: int) -> nn.Module:
    """The architecture for so many categories, the background not among them; random weights."""
    load_model_file(MODEL_FILE.name, MODEL_FILE.read_bytes())
    with torch.random.fork_rng(devices=[]):  # the weights are those of the seed alone
        background = has_background(build_model(architecture, 2))
    return build_model(architecture, categories + background)


def detect(explainer: Explainer, samples: Iterable[Sample]) -> Iterator[Found]:
    """Run the detector on one picture after the other, as an endpoint does."""
    for sample in samples:
        (found,) = explainer.detect([torch.from_numpy(sample.picture).permute(2, 0, 1)])
        yield Found(
            boxes=found.boxes.numpy(),
            labels=found.labels.numpy() + (0 if explainer.detector.background else 1),
            scores=found.scores.numpy(),
        )


def category_precisions(
    pairs: Sequence[tuple[Found, Found]], categories: Sequence[str]
) -> list[float]:
    """Give AP50, 0..1, of each label from 1 on, by pairs of what was found and what is; categories:
    their names."""
    curves = Curves(LEAST_OVERLAP)
    for found, true in pairs:
        names, no = (
            [categories[label - 1] for label in true.labels],
            np.zeros(len(true.labels), bool),
        )
        curves.add(
            found.boxes.astype(np.float64),
            [categories[label - 1] for label in found.labels],
            found.scores.astype(np.float64),
            Objects(true.boxes.astype(np.float64), tuple(names), no, no, (None,) * len(names)),
        )
    by_category = curves.by_category()
    return [
        voc_every_point(by_category[name]) if name in by_category else float("nan")
        for name in categories
    ]


def evaluate(weights: Path, samples: Iterable[Sample], device: str = "cpu") -> dict[str, float]:
    """Give AP50, 0..1, by category, over samples."""
    explainer = load_detector(weights, device)
    categories = explainer.categories[explainer.detector.background :]
    truths: list[Found] = []

    def noted() -> Iterator[Sample]:
        for sample in samples:
            ones = np.ones(len(sample.labels), np.float32)
            truths.append(Found(sample.boxes, sample.labels, ones))
            yield sample

    found = list(detect(explainer, noted()))
    pairs = list(zip(found, truths, strict=True))
    return dict(zip(categories, category_precisions(pairs, categories), strict=True))


def print_precisions(precisions: Mapping[str, float], pictures: str) -> float:
    """Print AP50 by category and the mean, which it gives; pictures: what they are of."""
    for category, precision in precisions.items():
        print(f"{category:<10} {precision:.3f}")
    mean = mean_over_categories(precisions.values())
    print(f"{'mean AP50':<10} {mean:.3f}  ({pictures})", flush=True)
    return mean


def main(arguments: Sequence[str] | None = None) -> int:
    """Print AP50 by category and the mean; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo.evaluate", description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--data", choices=SETS, default="scenes")
    parser.add_argument("--scenes", type=int, default=500, help="count of held-out pictures")
    parser.add_argument("--first", type=int, default=0, help="of them the first, from 0")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    samples = held_out(given.data, given.scenes, given.first)
    precisions = evaluate(given.weights, samples, given.device)
    mean = print_precisions(precisions, f"{given.scenes} {given.data}, from {given.first}")
    return 0 if mean >= LEAST_MEAN else BELOW_LEAST_MEAN


if __name__ == "__main__":
    raise SystemExit(main())

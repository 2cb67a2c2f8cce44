"""Maps that might have become the default: of several layers, of perturbed pictures, of a few
masked runs where the gradient points. The table of docs/methods.md that says what each gains.

python -m tests.benchmarks.alternatives --archive model_store/demo.mar --input pictures \\
    --detector "scenes, Faster R-CNN" --output docs/methods

Measured as `python -m jobs evaluate` does, on the same boxes; kept in alternatives.json beside the
other detectors'.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from handlers.explainer import Explainer
from handlers.images import decode_picture, to_pictures
from handlers.metrics.faithfulness import FaithfulnessOptions
from handlers.schema import Detections, ExplainRequest, Explanation
from jobs.evaluation.measure import GAUSSIAN, Maker, explained, gaussian, measure, with_map
from jobs.evaluation.subjects import MeasureOptions, chosen_boxes
from jobs.evaluation.tracking import scorings
from jobs.scoring.summary import summarised
from tests.benchmarks.defaults import less

RECORD = "alternatives.json"
SMOOTHED = ExplainRequest("odam", smooth=0.2)
FAITHFUL = ExplainRequest("layercam", layer="C3", smooth=0.1, center_prior=0.35)
DRAWS, NOISE = 4, 0.1  # perturbed pictures, and the noise's deviation as a share of white
LEAST_OVERLAP = 0.5  # of a box on a perturbed picture with the one that it stands for
BATCH = 16
MEASURED = MeasureOptions(per_picture=2, faithfulness=FaithfulnessOptions(steps=11, growth=2))


def makers(explainer: Explainer) -> dict[str, Maker]:
    """Every map by the name of its row."""
    smoothed, faithful = (explained(explainer, each) for each in (SMOOTHED, FAITHFUL))

    def fused(layers: str) -> Maker:
        return explained(explainer, replace(FAITHFUL, layer=layers, fuse=True))

    return {
        "`--smooth 0.2`": smoothed,
        "`layercam`, C3, `--smooth 0.1 --center-prior 0.35`": faithful,
        "the same, the mean of C3 and C4 (`--layer C3,C4 --fuse`)": fused("C3,C4"),
        "the same, the mean of the emitting level and C3": fused("emitting,C3"),
        "the product of the first two": product(smoothed, faithful),
        f"the first, the mean with {DRAWS} noisy copies": perturbed(explainer, smoothed),
        f"the second, the mean with {DRAWS} noisy copies": perturbed(explainer, faithful),
        "the first, weighed by 4 masked runs": guided(explainer, smoothed),
        "the second, weighed by 4 masked runs": guided(explainer, faithful),
    }


def on_picture(maps: Sequence[Explanation]) -> Tensor:
    """[N, H, W], the largest value of each 1."""
    heats = to_pictures([(each.heatmap, each.geometry) for each in maps], torch.device("cpu"))
    return heats / heats.amax((1, 2), keepdim=True).clamp(min=1e-12)


def _as_maps(picture: Tensor, boxes: Sequence[Explanation], heats: Tensor) -> Sequence[Explanation]:
    return [with_map(picture, each, heat) for each, heat in zip(boxes, heats, strict=True)]


def product(first: Maker, second: Maker) -> Maker:
    """What both maps name."""

    def make(picture: Tensor, boxes: Sequence[Explanation]) -> Sequence[Explanation]:
        heats = on_picture(first(picture, boxes)) * on_picture(second(picture, boxes))
        return _as_maps(picture, boxes, heats)

    return make


def perturbed(explainer: Explainer, maker: Maker, noise: float = NOISE) -> Maker:
    """The mean of the maps of the picture and of noisy ones (SmoothGrad, Smilkov et al. 2017), each
    of the box of the same label that overlaps most; one on which there is none is left out."""

    def make(picture: Tensor, boxes: Sequence[Explanation]) -> Sequence[Explanation]:
        total = on_picture(maker(picture, boxes))
        for seed in range(DRAWS):
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randn(picture.shape, generator=generator) * noise * 255
            changed = (picture + drawn).round().clamp(0, 255).to(torch.uint8)
            found = counterparts(explainer.detect([changed])[0], boxes)
            if not found:
                continue
            theirs = maker(changed, [replace(boxes[own], index=at) for own, at in found.items()])
            total[[*found]] += on_picture(theirs)
        return _as_maps(picture, boxes, total)

    return make


def counterparts(found: Detections, boxes: Sequence[Explanation]) -> dict[int, int]:
    """By a box's place that of the detection which stands for it on a perturbed picture."""
    overlap = box_iou(torch.tensor([each.box for each in boxes]), found.boxes)
    labels = torch.tensor([each.label for each in boxes])
    overlap[labels[:, None] != found.labels] = 0
    if not len(found):
        return {}
    best, place = overlap.max(1)
    return {own: int(place[own]) for own in range(len(boxes)) if best[own] >= LEAST_OVERLAP}


def guided(explainer: Explainer, maker: Maker) -> Maker:
    """Each box is divided in four at the middle of its map's mass; a quarter weighs what its box
    loses when that quarter of every box is grey. Four runs, whatever the number of boxes."""

    def make(picture: Tensor, boxes: Sequence[Explanation]) -> Sequence[Explanation]:
        heats = on_picture(maker(picture, boxes))
        quarters = torch.stack(
            [quartered(heat, each.box) for heat, each in zip(heats, boxes, strict=True)]
        )
        grey = picture.float().mean((1, 2), keepdim=True).round().to(torch.uint8)
        hidden = quarters.any(0)  # [4, H, W]
        masked = torch.where(hidden[:, None], grey, picture)
        whole_and_masked = torch.cat([picture[None], masked])
        for place, score in enumerate(scorings(explainer, picture, boxes, BATCH)):
            left = score(whole_and_masked)[:, 0]
            loss = (1 - left[1:] / left[0].clamp(min=1e-6)).clamp(min=0.01)
            weight = (quarters[place] * loss[:, None, None]).amax(0)
            heats[place] *= blurred(weight, boxes[place].box)
        return _as_maps(picture, boxes, heats)

    return make


def quartered(heat: Tensor, box: Sequence[float]) -> Tensor:
    """[4, H, W] of bool: upper left, upper right, lower left, lower right of the box [x1, y1, x2,
    y2], which meet at the middle of the heat's mass inside of it."""
    height, width = heat.shape
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    rows, columns = (y > box[1]) & (y < box[3]), (x > box[0]) & (x < box[2])
    inside = heat * rows[:, None] * columns
    mass = inside.sum()
    if mass > 0:
        down, across = (inside.sum(1) * y).sum() / mass, (inside.sum(0) * x).sum() / mass
    else:
        down, across = torch.tensor((box[1] + box[3]) / 2), torch.tensor((box[0] + box[2]) / 2)
    upper_and_lower = rows & (y <= down), rows & (y > down)
    left_and_right = columns & (x <= across), columns & (x > across)
    return torch.stack(
        [own[:, None] & other for own in upper_and_lower for other in left_and_right]
    )


def blurred(weight: Tensor, box: Sequence[float]) -> Tensor:
    """Without steps between the quarters: a mean over a fifth of the box's side."""
    side = max(1, round(0.1 * ((box[2] - box[0]) * (box[3] - box[1])) ** 0.5))
    return F.avg_pool2d(weight[None], 2 * side + 1, 1, side, count_include_pad=False)[0]


def measured(explainer: Explainer, pictures: Iterator[Tensor], boxes: int) -> dict[str, Any]:
    """By map the figures of `summarised`, of so many boxes at least where there are; "detection",
    the median seconds of one."""
    every = {**makers(explainer), GAUSSIAN: gaussian}
    rows: list[dict[str, Any]] = []
    seconds = []
    for number, picture in enumerate(pictures):
        started = time.perf_counter()
        explainer.detect([picture])
        seconds.append(time.perf_counter() - started)
        subjects = chosen_boxes(explainer, picture, MEASURED)
        found = measure(explainer, picture, subjects, every, MEASURED)
        rows += [{"picture": str(number), **row} for row in found]
        if len(rows) >= boxes * len(every):
            break
    own = {"boxes": len(rows) // len(every), "detection": statistics.median(seconds)}
    return {**own, "maps": summarised(rows)}


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a line for each map, of each detector deletion and insertion less the Gaussian's by
    D-RISE's similarity, and the time, detection included, in detections."""
    titles = [f"{name}, {own['boxes']} | detections" for name, own in figures.items()]
    lines = ["| map | " + " | ".join(titles) + " |", "|---" * (2 * len(titles) + 1) + "|"]
    names = [name for name in next(iter(figures.values()))["maps"] if name != GAUSSIAN]
    for name in names:
        cells = []
        for own in figures.values():
            cells.append(less(own["maps"][name], GAUSSIAN, ""))
            cells.append(f"{own['maps'][name]['seconds'][0] / own['detection']:.1f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", required=True)
    parser.add_argument("--input", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--detector", required=True, metavar="NAME", help="its column")
    parser.add_argument("--boxes", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("docs/methods"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    explainer = Explainer.from_archive(options.archive)
    files = (each.read_bytes() for each in sorted(options.input.iterdir()))
    path = options.output / RECORD
    figures = json.loads(path.read_text()) if path.exists() else {}
    figures[options.detector] = measured(explainer, map(decode_picture, files), options.boxes)
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()

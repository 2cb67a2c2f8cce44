"""The fast precision against stock fp32 detection alone, on trained weights; and whether it finds
the same boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from handlers.explainer import Explainer
from handlers.precision import has_bfloat16_units
from handlers.schema import Detections, ExplainRequest
from tests.benchmarks.harness import Goal, Row, Settings, Work, alternate, middle, ratios, spread
from tests.benchmarks.machine import processor_flags
from tests.benchmarks.trained import BCCD, BCCD_CATEGORIES, bccd_detector, bccd_pictures

PRECISION = "fast"
BATCH = 8
SCORE, OVERLAP = 0.5, 0.95


def _run(settings: Settings) -> Iterator[Row]:
    pictures = bccd_pictures(settings)
    device = torch.device(settings.device)
    exact = Explainer.from_model(bccd_detector(), BCCD_CATEGORIES, settings.device)
    fast = Explainer.from_model(bccd_detector(), BCCD_CATEGORIES, settings.device, PRECISION)
    model = exact.detector.model
    request = ExplainRequest(score_threshold=SCORE)
    timed = pictures[:BATCH]

    @torch.no_grad()
    def stock() -> None:
        for picture in timed:
            model([picture.to(device) / 255])

    times = alternate(settings, ours=lambda: fast.explain(timed, request, BATCH), stock=stock)
    shares = ratios(times["ours"], times["stock"])
    flags = processor_flags()
    units = has_bfloat16_units(device)
    if device.type == "cuda":
        where = "" if units else "this GPU has no bfloat16 units"
    else:
        where = "" if "amx_bf16" in flags else "this CPU has no AMX"
    yield Row(
        case=f"{BCCD}, {len(timed)} pictures",
        measure="detect + explain over stock fp32 detect",
        value=middle(shares),
        spread=spread(shares),
        ours=middle(times["ours"]),
        other=middle(times["stock"]),
        # The limit is set for units that this machine may lack.
        goal=None if where else Goal(0.25),
        note=f"No limit is set here: {where}." if where else "",
    )
    kept = [
        _found_again(one, other)
        for one, other in zip(exact.detect(pictures), fast.detect(pictures), strict=True)
    ]
    same = torch.cat(kept).float()
    yield Row(
        case=f"{BCCD}, {len(pictures)} test pictures, {len(same)} boxes over {SCORE}",
        measure=f"share found again at IoU > {OVERLAP} with the same label",
        value=float(same.mean()),
        spread=(float(same.mean()), float(same.mean())),
        goal=Goal(0.99, at_most=False),
    )


def _found_again(exact: Detections, fast: Detections) -> Tensor:
    """bool [N], for each exact detection over SCORE whether the fast ones have it."""
    rows: Sequence[int] = torch.where(exact.scores > SCORE)[0].tolist()
    overlaps = box_iou(exact.boxes, fast.boxes)
    found = [
        bool((overlaps[row] * (fast.labels == exact.labels[row]) > OVERLAP).any()) for row in rows
    ]
    return torch.tensor(found, dtype=torch.bool)


WORK = Work("Fast precision, against stock fp32 detection", _run)

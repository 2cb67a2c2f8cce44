"""The fast precision against stock fp32 detection alone, on trained weights; and whether it finds
the same boxes."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from handlers.explainer import Explainer
from handlers.precision import has_bfloat16_units
from handlers.schema import ExplainRequest
from tests.benchmarks.harness import (
    Goal,
    Row,
    Settings,
    Work,
    alternate,
    found_again,
    middle,
    ratios,
    spread,
)
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
    kept = []
    for one, other in zip(exact.detect(pictures), fast.detect(pictures), strict=True):
        sure = one.scores > SCORE
        kept.append(found_again(one.boxes[sure], one.labels[sure], other, OVERLAP) >= 0)
    same = torch.cat(kept).float()
    yield Row(
        case=f"{BCCD}, {len(pictures)} test pictures, {len(same)} boxes over {SCORE}",
        measure=f"share found again at IoU > {OVERLAP} with the same label",
        value=float(same.mean()),
        spread=(float(same.mean()), float(same.mean())),
        goal=Goal(0.99, at_most=False),
    )


WORK = Work("Fast precision, against stock fp32 detection", _run)

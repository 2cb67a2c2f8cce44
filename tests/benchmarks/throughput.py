"""Pictures per second of whole batches: detect, detect and explain, and the backbone alone at its
best. What a GPU is for; it runs on a CPU as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from tests.benchmarks.added_cost import CLASSES
from tests.benchmarks.harness import Goal, Row, Settings, Work, alternate, middle, ratios, spread

ARCHITECTURE = "fasterrcnn_resnet50_fpn"
BATCH = 32
PRECISION = "fast"


def _backbone(model: nn.Module, settings: Settings, number: int) -> Callable[[], Any]:
    """Compiled, bfloat16, channels_last, on pixels that are there already."""
    backbone = model.get_submodule("backbone")
    compiled = torch.compile(backbone)
    transform: Any = model.get_submodule("transform")
    images, _ = transform([settings.picture().to(settings.device) / 255])
    pixels: Tensor = images.tensors.expand(number, -1, -1, -1).contiguous(
        memory_format=torch.channels_last
    )

    @torch.inference_mode()
    def run() -> None:
        with torch.autocast(torch.device(settings.device).type, torch.bfloat16):
            compiled(pixels)

    return run


def _run(settings: Settings) -> Iterator[Row]:
    number = 2 if settings.tiny else BATCH if settings.device.startswith("cuda") else 4
    options = settings.sized(box_score_thresh=0.0)
    labels = [str(label) for label in range(CLASSES)]
    pictures = [settings.picture(seed) for seed in range(number)]

    def network() -> nn.Module:
        torch.manual_seed(0)
        return build_model(ARCHITECTURE, CLASSES, options)

    fast = Explainer.from_model(network(), labels, settings.device, PRECISION)
    stock_model = network().to(settings.device)
    alone = network().to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    request = ExplainRequest(score_threshold=0.0)

    @torch.no_grad()
    def stock() -> None:
        for picture in pictures:
            stock_model([picture.to(settings.device) / 255])

    seconds = alternate(
        settings,
        backbone=_backbone(alone, settings, number),
        detect=lambda: fast.detect(pictures, number),
        explain=lambda: fast.explain(pictures, request, number),
        stock=stock,
    )
    for name, title in (
        ("stock", "stock eager fp32 loop, detect"),
        ("detect", "ours, detect"),
        ("explain", "ours, detect + explain 100 boxes"),
        ("backbone", "compiled bfloat16 backbone alone"),
    ):
        rates = [number / each for each in seconds[name]]
        yield Row(
            case=f"{ARCHITECTURE}, batch of {number}: {title}",
            measure="pictures a second",
            value=middle(rates),
            spread=spread(rates),
            ours=middle(seconds[name]),
        )
    gpu = settings.device.startswith("cuda")
    for other, title, limit in (
        ("stock", "times the stock eager fp32 loop", 5.0),
        ("backbone", "share of the compiled bfloat16 backbone's rate", 0.6),
    ):
        values = ratios(seconds[other], seconds["explain"])
        yield Row(
            case=f"{ARCHITECTURE}, batch of {number}: detect + explain",
            measure=title,
            value=middle(values),
            spread=spread(values),
            ours=middle(seconds["explain"]),
            other=middle(seconds[other]),
            goal=Goal(limit, at_most=False) if gpu else None,
            note="" if gpu else "The limits are a GPU's; run with DEVICE=cuda where there is one.",
        )


WORK = Work("Pictures a second, detect and explain", _run)

"""Pictures per second of whole batches: detect, detect and explain, and the backbone alone at its
best. What a GPU is for; it runs on a CPU as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from handlers.detectors.registry import build_model
from handlers.explainer import Explainer
from handlers.schema import ExplainRequest
from tests.benchmarks.added_cost import CLASSES
from tests.benchmarks.harness import (
    DIFFER,
    Goal,
    Row,
    Settings,
    Work,
    alternate,
    difference,
    equal,
    found_again,
    middle,
    ratios,
    spread,
)

ARCHITECTURE = "fasterrcnn_resnet50_fpn"
BATCH = 32
PRECISION = "fast"


def _backbone(
    model: nn.Module, settings: Settings, number: int, mode: str = "default"
) -> Callable[[], Any]:
    """Compiled in that mode, bfloat16, channels_last, on pixels that are there already."""
    backbone = model.get_submodule("backbone")
    compiled = torch.compile(backbone, mode=mode)
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


def _as_on_processor(
    network: Callable[[], nn.Module],
    labels: list[str],
    settings: Settings,
    picture: Tensor,
    request: ExplainRequest,
) -> str:
    """The verdict on fp32 maps of the device beside the processor's, box by box."""
    explainers = [Explainer.from_model(network(), labels, on) for on in ("cpu", settings.device)]
    (here,), (there,) = (each.detect([picture]) for each in explainers)
    places = found_again(here.boxes, here.labels, there)
    pairs = [(place, int(other)) for place, other in enumerate(places) if other >= 0]
    if len(pairs) < 0.99 * len(here):
        return f"boxes {DIFFER}: {len(pairs)} of {len(here)} found again"
    one, other = (each.explain([picture], request)[0] for each in explainers)
    # Each side sums in an order of its own.
    return equal(max(difference(one[a].heatmap, other[b].heatmap) for a, b in pairs), 1e-2)


def _run(settings: Settings) -> Iterator[Row]:
    gpu = settings.device.startswith("cuda")
    number = 2 if settings.tiny else BATCH if gpu else 4
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
    default = replace(fast.defaults, score_threshold=0.0)
    # CUDA graphs, which on a GPU may be the backbone's best; elsewhere there are none.
    graphs = {"graphs": _backbone(alone, settings, number, "reduce-overhead")} if gpu else {}
    for each in graphs.values():
        for _ in range(3):  # they are recorded in the second run
            each()

    @torch.no_grad()
    def stock() -> None:
        for picture in pictures:
            stock_model([picture.to(settings.device) / 255])

    seconds = alternate(
        settings,
        backbone=_backbone(alone, settings, number),
        detect=lambda: fast.detect(pictures, number),
        explain=lambda: fast.explain(pictures, request, number),
        default=lambda: fast.explain(pictures, default, number),
        stock=stock,
        **graphs,
    )
    for name, title in (
        ("stock", "stock eager fp32 loop, detect"),
        ("detect", "ours, detect"),
        ("explain", "ours, detect + explain 100 boxes"),
        ("default", "ours, detect + explain 100 boxes by default (smoothed)"),
        ("backbone", "compiled bfloat16 backbone alone"),
        ("graphs", "the same in CUDA graphs"),
    ):
        if name not in seconds:
            continue
        rates = [number / each for each in seconds[name]]
        yield Row(
            case=f"{ARCHITECTURE}, batch of {number}: {title}",
            measure="pictures a second",
            value=middle(rates),
            spread=spread(rates),
            ours=middle(seconds[name]),
        )
    best = min(("backbone", *graphs), key=lambda name: middle(seconds[name]))
    same = _as_on_processor(network, labels, settings, pictures[0], request) if gpu else ""
    for other, title, limit in (
        ("stock", "times the stock eager fp32 loop", 5.0),
        (best, "share of the compiled bfloat16 backbone's rate", 0.6),
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
            same=same,
            note="" if gpu else "The limits are a GPU's; run with DEVICE=cuda where there is one.",
        )


WORK = Work("Pictures a second, detect and explain", _run)
